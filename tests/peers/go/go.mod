module ebbtide/peers

go 1.19
