"""What `make demo` adds to the shop: servers of its own, customers, and somebody who watches."""
