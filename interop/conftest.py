"""What the tests share: one cluster, the images, and clients."""

import os
import tempfile
from pathlib import Path

import pytest
import tritonclient.grpc as triton

import cluster as clusters
import images as test_images

# gRPC would send even loopback traffic through a proxy.
os.environ["no_proxy"] = "127.0.0.1"


@pytest.fixture(scope="session")
def cluster():
    with tempfile.TemporaryDirectory() as directory, clusters.serving(Path(directory) / "log") as serving:
        yield serving


@pytest.fixture(scope="session")
def images():
    return test_images.load()


@pytest.fixture
def follower(cluster):
    with triton.InferenceServerClient(cluster.followers[0].inference) as client:
        yield client


@pytest.fixture
def leader(cluster):
    with triton.InferenceServerClient(cluster.leader.inference) as client:
        yield client
