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
	if err := gateway.Serve(ctx, server); err != nil {      // ends when what has come is answered, and prefill's answers are read
		log.Fatal(err)
	}
}
