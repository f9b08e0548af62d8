"""`python -m lablet_local`: the local mesh's commands without the client."""

from lablet_local.cli import app

if __name__ == "__main__":
    app(prog_name="lablet")
