"""Real servers and faults for tests of every package: started on 127.0.0.1, ended by whoever started them."""
