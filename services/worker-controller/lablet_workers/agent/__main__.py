"""`python -m lablet_workers.agent`: the command `lablet agent` where only this package is installed."""

from lablet_workers.agent.command import app

if __name__ == "__main__":
    app()
