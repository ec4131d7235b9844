module pdroute.test/cgo

go 1.20
