// A whole gateway for a prefill/decode cluster: gateway BLOCK CONFIG ADDRESS
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"libpdroute.test/pdroute"
)

func main() {
	gateway, err := pdroute.NewHandler(pdroute.HandlerOptions{Block: os.Args[1], ConfigFile: os.Args[2]})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", gateway)
	mux.Handle("/metrics", gateway.Status())
	server := &http.Server{Addr: os.Args[3], Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go gateway.Process().Probe(ctx, pdroute.ProbeOptions{}) // watches the servers, unless another process of the block does
	ended := make(chan error)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		log.Fatal(err)
	case <-ctx.Done():
	}
	server.Shutdown(context.Background())  // answers are finished
	<-ended                                // what was being accepted is known now,
	server.Shutdown(context.Background())  // and finished
	gateway.Shutdown(context.Background()) // answers of prefill are read to their end
}
