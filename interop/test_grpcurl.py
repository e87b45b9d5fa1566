"""grpcurl, which learns the protocol from the server, through a follower."""

import base64
import json
import subprocess

import numpy
import pytest

from cluster import MODEL, ROOT

GRPCURL = ROOT / ".tools" / "grpcurl"
SERVICE = "inference.GRPCInferenceService"


def grpcurl(address, *arguments, request=None):
    """Runs grpcurl, with a request from standard input."""
    data = [] if request is None else ["-d", "@"]
    command = [GRPCURL, "-plaintext", "-max-time", "10", *data, address, *arguments]
    return subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=20)


def call(address, method, request):
    """The answer of a method."""
    done = grpcurl(address, method, request=request)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def inference(cluster):
    return cluster.followers[0].inference


def model_infer(address, pixels, model=MODEL, **contents):
    tensor = {"name": "image", "datatype": "FP32", "shape": pixels.shape}
    request = {"model_name": model, "inputs": [tensor]}
    if contents:
        tensor["contents"] = contents
    else:
        request["raw_input_contents"] = [base64.b64encode(pixels.astype("<f4").tobytes()).decode()]
    return grpcurl(address, f"{SERVICE}/ModelInfer", request=request)


def best(done):
    """The class in the answer of one ModelInfer."""
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [o["name"] for o in answer["outputs"]] == ["logits"]
    (raw,) = answer["rawOutputContents"]
    return int(numpy.frombuffer(base64.b64decode(raw), "<f4").argmax())


def test_list_and_describe(inference):
    services = grpcurl(inference, "list").stdout.split()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)
    described = grpcurl(inference, "describe", SERVICE)
    assert "rpc ModelInfer ( .inference.ModelInferRequest ) returns ( .inference.ModelInferResponse );" in described.stdout
    described = grpcurl(inference, "describe", "inference.ModelInferRequest")
    assert "repeated bytes raw_input_contents = 7;" in described.stdout


def test_clients_can_not_see_what_is_for_operators_and_peers(inference):
    services = grpcurl(inference, "list").stdout.split()
    assert [s for s in services if "control" in s or "peer" in s or "raft" in s] == []


def test_live_ready_and_health(inference):
    assert call(inference, f"{SERVICE}/ServerLive", {}) == {"live": True}
    assert call(inference, f"{SERVICE}/ServerReady", {}) == {"ready": True}
    assert call(inference, f"{SERVICE}/ModelReady", {"name": MODEL}) == {"ready": True}
    assert call(inference, "grpc.health.v1.Health/Check", {}) == {"status": "SERVING"}


def test_infer_with_raw_contents(inference, images):
    _, pixels, predicted = images[0]
    assert best(model_infer(inference, pixels)) == predicted


def test_infer_with_typed_contents(inference, images):
    _, pixels, predicted = images[1]
    assert best(model_infer(inference, pixels, fp32_contents=pixels.ravel().tolist())) == predicted


def test_errors_carry_a_reason_for_machines(inference, images):
    _, pixels, _ = images[0]
    refused = model_infer(inference, pixels, model="nonesuch")
    assert refused.returncode != 0
    for words in ("Code: NotFound", "google.rpc.ErrorInfo", '"reason": "UNKNOWN_MODEL"', '"domain": "orrery"'):
        assert words in refused.stderr


def test_control_listener(cluster):
    follower = cluster.followers[0]
    assert "orrery.control.v1.Control" in grpcurl(follower.control, "list").stdout.split()
    status = call(follower.control, "orrery.control.v1.Control/ClusterStatus", {})
    assert (status["name"], status["leader"]) == (follower.name, cluster.leader.name)
