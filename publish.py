"""The front door: make the model repository that a recipe describes, and publish it.

python publish.py                                   the demo, into runs/demo/hub
python publish.py RECIPE --repo-id USER/NAME        another recipe, pushed to the Hub
"""

import sys

try:
    from distilrubert.pipeline.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"publish.py: {error.msg}: run `make setup`, then .venv/bin/python publish.py")

if __name__ == "__main__":
    sys.exit(main(program="publish.py"))
