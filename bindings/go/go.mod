module libpdroute.test/pdroute

go 1.21
