"""`python -m lablet_artifacts`."""

from lablet_artifacts.app import main

if __name__ == "__main__":
    main()
