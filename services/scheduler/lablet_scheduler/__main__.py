"""`python -m lablet_scheduler`."""

from lablet_scheduler.app import main

if __name__ == "__main__":
    main()
