"""`python -m lablet_gateway`."""

from lablet_gateway.app import main

if __name__ == "__main__":
    main()
