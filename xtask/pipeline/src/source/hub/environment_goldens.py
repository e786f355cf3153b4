"""What huggingface_hub makes of environment variables.

    python environment_goldens.py     # rewrites environment_goldens.json; tested with huggingface_hub 2.4.0

Each case is imported in a process of its own that has no other variables.
"""

import json
import os
import subprocess
import sys

CASES = [
    {},
    {"HF_HOME": "/data/hf"},
    {"HF_HOME": "~/hf"},
    {"HF_HOME": "$DISK/hf", "DISK": "/mnt/big"},
    {"HF_HOME": "${DISK}/hf/$ABSENT", "DISK": "/mnt/big"},
    {"HF_HOME": "relative/hf"},
    {"HF_HOME": ""},
    {"XDG_CACHE_HOME": "/xdg"},
    {"XDG_CACHE_HOME": "~/xdg"},
    {"XDG_CACHE_HOME": "/xdg", "HF_HOME": "/data/hf"},
    {"HF_HUB_CACHE": "/big disk/cache"},
    {"HF_HUB_CACHE": "~/cache"},
    {"HF_HUB_CACHE": "$HOME/cache"},
    {"HF_HUB_CACHE": ""},
    {"HF_HUB_CACHE": "/new", "HUGGINGFACE_HUB_CACHE": "/old"},
    {"HUGGINGFACE_HUB_CACHE": "/old"},
    {"HUGGINGFACE_HUB_CACHE": "~/old/$DISK", "DISK": "d"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/data/hf"},
    {"HF_HUB_CACHE": "/new", "HF_HOME": "/data/hf"},
    {"TRANSFORMERS_CACHE": "/transformers"},
    {"HF_ENDPOINT": "https://hf-mirror.com"},
    {"HF_ENDPOINT": "https://hf-mirror.com/"},
    {"HF_ENDPOINT": "https://hf-mirror.com/hub//"},
    {"HF_TOKEN": "hf_one"},
    {"HF_TOKEN": "hf_one\n"},
    {"HF_TOKEN": " hf_\r\none\t"},
    {"HF_TOKEN": ""},
    {"HF_TOKEN": "hf_one", "HUGGING_FACE_HUB_TOKEN": "hf_two"},
    {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "hf_two\n"},
    {"HUGGING_FACE_HUB_TOKEN": "hf_two"},
    {"HF_TOKEN": "hf_one", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
    {"HF_TOKEN": "hf_one", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"},
    {"HF_TOKEN_PATH": "/secrets/token"},
    {"HF_TOKEN_PATH": "~/token"},
    {"HF_TOKEN_PATH": "$HOME/token", "HF_HOME": "/data/hf"},
    {"HF_HUB_OFFLINE": "1"},
    {"HF_HUB_OFFLINE": "yes"},
    {"HF_HUB_OFFLINE": "True"},
    {"HF_HUB_OFFLINE": "on"},
    {"HF_HUB_OFFLINE": "0"},
    {"HF_HUB_OFFLINE": "2"},
    {"HF_HUB_OFFLINE": ""},
    {"TRANSFORMERS_OFFLINE": "1"},
    {"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": ""},
    {"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "0"},
    {"HF_DATASETS_OFFLINE": "1"},
]

PROBE = """
import json
from huggingface_hub import constants
from huggingface_hub.utils._headers import get_token_to_send
print(json.dumps({
    "cache": constants.HF_HUB_CACHE, "endpoint": constants.ENDPOINT, "offline": constants.HF_HUB_OFFLINE,
    "token_path": constants.HF_TOKEN_PATH, "token": get_token_to_send(None),
}))
"""


def probe(case):
    environment = {"HOME": "/home/user", "PATH": os.environ["PATH"], **case}
    output = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, check=True)
    return {"environment": {"HOME": "/home/user", **case}, **json.loads(output.stdout)}


if __name__ == "__main__":
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "environment_goldens.json")
    with open(path, "w") as file:
        json.dump([probe(case) for case in CASES], file, indent=1)
        file.write("\n")
