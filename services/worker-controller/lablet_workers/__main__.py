"""`python -m lablet_workers`."""

from lablet_workers.app import main

if __name__ == "__main__":
    main()
