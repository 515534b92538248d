"""What Kubernetes would be told: every directory of k8s/ that can be applied, rendered as kubectl renders it."""

import copy
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
REGISTRY = "registry.example.com"
OFFERED = re.compile(r"^( *)# (- \.\./.+|replicas: .+|authorization: .+)$", re.MULTILINE)
"""A line that whoever wants it takes the comment off."""
IMAGE = re.compile(r"^( *)- name: (sightread-.+)$", re.MULTILINE)
Manifest = dict[str, Any]
Manifests = list[Manifest]


@cache
def _loaded(directory: str) -> Manifests:
    renderer = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    assert shutil.which(renderer[0]), (
        "kubectl (1.24 or newer) or kustomize (4.5 or newer) is needed to render k8s/: install one"
    )
    done = subprocess.run([*renderer, str(ROOT / directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # the loader in C: the other one takes seconds
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))  # it is a safe loader


@pytest.fixture(scope="session")
def render() -> Callable[[str], Manifests]:
    """Path of a directory → what it renders to, made anew at each call."""
    return lambda directory: copy.deepcopy(_loaded(directory))


@pytest.fixture(scope="session")
def render_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Manifests]:
    """The base with components, as an overlay of somebody else's would have it."""

    def rendered(*components: str) -> Manifests:
        # kustomize takes relative paths only, and they may lie anywhere
        folder = tmp_path_factory.mktemp("overlay")
        k8s = Path(*[".."] * len(folder.parts[1:]), *(ROOT / "k8s").parts[1:])
        names = ("gateway", "model-server", "training")
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "sightread",
            "resources": [str(k8s / "base")],
            "components": [str(k8s / "components" / component) for component in components],
            "images": [{"name": f"sightread-{name}", "newTag": "test"} for name in names],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return _loaded(str(folder))

    return rendered


@pytest.fixture(scope="session")
def render_offered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Manifests]:
    """An overlay's name → what it renders to with all that is offered in comments, and with a registry."""

    def rendered(overlay: str) -> Manifests:
        k8s = tmp_path_factory.mktemp("offered") / "k8s"
        shutil.copytree(ROOT / "k8s", k8s)
        for file in k8s.rglob("*.yaml"):
            file.write_text(OFFERED.sub(r"\1\2", file.read_text()))
        file = k8s / "overlays" / overlay / "kustomization.yaml"
        file.write_text(IMAGE.sub(rf"\g<0>\n\1  newName: {REGISTRY}/\2", file.read_text()))
        return _loaded(str(file.parent))

    return rendered
