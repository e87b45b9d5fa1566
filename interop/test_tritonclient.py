"""NVIDIA's Python client, mostly through a follower."""

import queue
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from cluster import MODEL

# The deadline of every call, in seconds.
DEADLINE = 10


def image_input(pixels, name="image", datatype="FP32"):
    tensor = triton.InferInput(name, pixels.shape, datatype)
    tensor.set_data_from_numpy(pixels)
    return [tensor]


def infer(client, pixels, **options):
    options = {"client_timeout": DEADLINE} | options
    return client.infer(MODEL, image_input(pixels), **options)


def classes(result):
    """The class of each row of an answer."""
    return result.as_numpy("logits").argmax(axis=1).tolist()


def refusal(call):
    """The status and the text with which a call must fail."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_live_and_ready(follower):
    assert follower.is_server_live(client_timeout=DEADLINE)
    assert follower.is_server_ready(client_timeout=DEADLINE)
    assert follower.is_model_ready(MODEL, client_timeout=DEADLINE)
    assert follower.is_model_ready(MODEL, "1", client_timeout=DEADLINE)
    assert not follower.is_model_ready(MODEL, "2", client_timeout=DEADLINE)
    assert not follower.is_model_ready("nonesuch", client_timeout=DEADLINE)


def test_server_metadata(follower):
    metadata = follower.get_server_metadata(client_timeout=DEADLINE)
    assert metadata.name == "orrery"
    assert metadata.version
    assert list(metadata.extensions) == []


def test_model_metadata(follower):
    metadata = follower.get_model_metadata(MODEL, as_json=True, client_timeout=DEADLINE)
    assert metadata["name"] == MODEL
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["-1", "28", "28"]}]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": ["-1", "10"]}]


@pytest.mark.parametrize("entry", ["follower", "leader"])
def test_every_image_is_classified_as_in_training(entry, images, request):
    client = request.getfixturevalue(entry)
    answers = {file: classes(infer(client, pixels)) for file, pixels, _ in images}
    assert answers == {file: [predicted] for file, _, predicted in images}


def test_batch(follower, images):
    five = images[:5]
    batch = infer(follower, numpy.stack([pixels[0] for _, pixels, _ in five]))
    assert classes(batch) == [predicted for _, _, predicted in five]
    alone = numpy.concatenate([infer(follower, pixels).as_numpy("logits") for _, pixels, _ in five])
    numpy.testing.assert_allclose(batch.as_numpy("logits"), alone, atol=1e-4)


def test_answer_names_the_request_and_the_model(follower, images):
    _, pixels, _ = images[0]
    answer = infer(follower, pixels, request_id="request-7", outputs=[triton.InferRequestedOutput("logits")]).get_response()
    assert (answer.id, answer.model_name, answer.model_version) == ("request-7", MODEL, "1")
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [("logits", "FP32", [1, 10])]


def test_parameters_are_accepted(follower, images):
    _, pixels, predicted = images[0]
    answer = infer(follower, pixels, model_version="1", priority=1, timeout=5_000_000, parameters={"tier": "gold", "n": 3})
    assert classes(answer) == [predicted]


def test_async_infer(follower, images):
    answers = queue.Queue()
    for n, (_, pixels, _) in enumerate(images):
        follower.async_infer(
            MODEL, image_input(pixels), lambda result, error, n=n: answers.put((n, result, error)), client_timeout=DEADLINE
        )
    for _ in images:
        n, result, error = answers.get(timeout=DEADLINE)
        assert error is None
        assert classes(result) == [images[n][2]], images[n][0]


def test_gzip(follower, images):
    _, pixels, predicted = images[0]
    assert classes(infer(follower, pixels, compression_algorithm="gzip")) == [predicted]


def test_eight_threads(cluster, images):
    """Each has its own client, and each controller is asked."""
    controllers = [cluster.leader, *cluster.followers]

    def wrong(thread):
        with triton.InferenceServerClient(controllers[thread % len(controllers)].inference) as client:
            return [file for file, pixels, predicted in images if classes(infer(client, pixels)) != [predicted]]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(wrong, range(8))) == [[]] * 8


def test_a_deadline_on_the_clients_side(follower, images):
    _, pixels, _ = images[0]
    status, _ = refusal(lambda: infer(follower, pixels, client_timeout=0.0001))
    assert status == "DEADLINE_EXCEEDED"


def test_a_deadline_that_the_server_can_not_keep(follower, images):
    """The parameter counts microseconds; the client itself would wait, so this is the server's answer."""
    _, pixels, _ = images[0]
    status, text = refusal(lambda: infer(follower, pixels, timeout=1))
    assert status == "DEADLINE_EXCEEDED"
    assert "deadline" in text


def square(rows=1, side=28, dtype=numpy.float32):
    return numpy.zeros((rows, side, side), dtype)


@pytest.mark.parametrize(
    ("model", "version", "inputs", "status", "words"),
    [
        pytest.param(MODEL, "", image_input(square(side=27)), "INVALID_ARGUMENT", ["image", "27", "28"], id="shape"),
        pytest.param(MODEL, "", image_input(square(rows=1)[0]), "INVALID_ARGUMENT", ["image", "28"], id="no batch"),
        pytest.param(MODEL, "", image_input(square(rows=17)), "INVALID_ARGUMENT", ["17", "16"], id="too many rows"),
        pytest.param(
            MODEL, "", image_input(square(dtype=numpy.float64), datatype="FP64"), "INVALID_ARGUMENT", ["image", "FP64", "FP32"], id="datatype"
        ),
        pytest.param(MODEL, "", image_input(square(), name="picture"), "INVALID_ARGUMENT", ["picture", "image"], id="input"),
        pytest.param("nonesuch", "", image_input(square()), "NOT_FOUND", ["nonesuch", "orrery model list"], id="model"),
        pytest.param(MODEL, "9", image_input(square()), "NOT_FOUND", [MODEL, "9"], id="version"),
    ],
)
def test_refusals_say_what_is_wrong(follower, model, version, inputs, status, words):
    got, text = refusal(lambda: follower.infer(model, inputs, version, client_timeout=DEADLINE))
    assert got == status, text
    assert [w for w in words if w not in text] == [], text


def test_unknown_output(follower, images):
    _, pixels, _ = images[0]
    status, text = refusal(lambda: infer(follower, pixels, outputs=[triton.InferRequestedOutput("labels")]))
    assert status == "INVALID_ARGUMENT"
    assert "labels" in text and "logits" in text


def test_extensions_that_do_not_exist_say_so(follower):
    """The server's metadata names no extension; a client that asks all the same learns why it gets nothing."""
    for call in (follower.get_model_config, follower.get_inference_statistics):
        status, _ = refusal(lambda: call(MODEL, client_timeout=DEADLINE))
        assert status == "UNIMPLEMENTED", call.__name__
