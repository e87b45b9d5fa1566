"""A throw-away cluster of real processes that serves one model."""

import json
import re
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ORRERY = ROOT / "bin" / "orrery"
MODEL = "fashion-mlp"

START_SECONDS = 60
STOP_SECONDS = 20
# The cluster ends by itself after this, whatever becomes of the tests.
LIFE_SECONDS = 300


@dataclass(frozen=True)
class Controller:
    """One controller: its name, and its addresses as host:port."""

    name: str
    control: str
    inference: str


@dataclass(frozen=True)
class Cluster:
    """A cluster that serves MODEL."""

    leader: Controller
    followers: list[Controller]


@contextmanager
def serving(log: Path):
    """Runs a cluster that serves MODEL. Its output goes to log."""
    if not ORRERY.exists():
        raise FileNotFoundError(f"{ORRERY} is not there: run make build")
    # In the background timeout would pass a signal on twice, to its child and to
    # its process group, and the second one ends orrery dev at once.
    command = ["timeout", "--foreground", "--kill-after=10", str(LIFE_SECONDS), str(ORRERY), "dev", "--load-idle", "500ms"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    addresses = {}
    try:
        addresses = _addresses(process, log)
        _load(addresses["ORRERY_CONTROL"])
        yield _meet(addresses)
    finally:
        _stop(process, log)
    _check_gone([a for listener in addresses.values() for a in listener])


def _addresses(process, log):
    """The addresses that `orrery dev` tells, by the name of the environment variable, once it is ready."""

    def told():
        if process.poll() is not None:
            raise RuntimeError(f"orrery dev ended with status {process.returncode}:\n{log.read_text()}")
        text = log.read_text()
        found = dict(re.findall(r"export (ORRERY_\w+)=(\S+)\n", text))
        return {k: v.split(",") for k, v in found.items()} if len(found) == 2 else None

    return until(told, START_SECONDS, lambda: f"orrery dev did not become ready:\n{log.read_text()}")


def _load(control):
    """Loads MODEL and waits until it is served."""
    orrery(control, "model", "load", MODEL, "--source", MODEL + ".onnx")

    def phase():
        return orrery(control, "cluster", "status")["cluster"]["phase"]

    until(lambda: phase() == "PHASE_SERVING", START_SECONDS, lambda: f"the cluster is still in {phase()}")


def _meet(addresses):
    """Asks each controller who it is, and who leads."""
    leader, followers = None, []
    for control, inference in zip(addresses["ORRERY_CONTROL"], addresses["ORRERY_INFERENCE_ADDRESS"], strict=True):
        status = orrery([control], "cluster", "status")
        controller = Controller(status["name"], control, inference)
        if status["leader"] == status["name"]:
            leader = controller
        else:
            followers.append(controller)
    if leader is None:
        raise RuntimeError(f"none of {followers} leads")
    return Cluster(leader, followers)


def orrery(control, *arguments):
    """What the command line answers, from its JSON."""
    command = [str(ORRERY), *arguments, "--control", ",".join(control), "--output", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def until(condition, seconds, problem):
    """Waits for condition() to be true, and returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds} s: {problem()}")
        time.sleep(0.05)
    return value


def _stop(process, log):
    process.terminate()
    try:
        status = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    if status != 0:
        raise RuntimeError(f"orrery dev ended with status {status}:\n{log.read_text()}")


def _check_gone(addresses):
    """Nothing may listen where the cluster was."""
    for address in addresses:
        host, port = address.rsplit(":", 1)
        with socket.socket() as s:
            s.settimeout(1)
            if s.connect_ex((host, int(port))) == 0:
                raise RuntimeError(f"orrery dev has ended, but somebody still listens on {address}")
