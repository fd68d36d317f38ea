module quarterdeck.dev/bench

go 1.22
