"""What a release is made of agrees with itself: versions, Pythons, addresses, licences, workflows, Dockerfile."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import twohot
from paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PYTHONS = [found[1] for each in PROJECT["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", each))]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"release_{name}", ROOT / "release" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def test_pythons_are_the_same_everywhere() -> None:
    assert PYTHONS[0] == PROJECT["requires-python"].removeprefix(">=")
    assert [int(each.split(".")[1]) for each in PYTHONS] == list(range(10, 10 + len(PYTHONS)))
    built = PYPROJECT["tool"]["cibuildwheel"]["build"]
    assert built == [f"cp{each.replace('.', '')}-*" for each in PYTHONS]
    assert WORKFLOWS["test"]["jobs"]["parts"]["strategy"]["matrix"]["python"] == PYTHONS


def test_workflows_pin_whole_versions_and_may_do_little() -> None:
    assert set(WORKFLOWS) == {"test", "wheels", "release"}
    used = [step["uses"] for workflow in WORKFLOWS.values() for step in steps(workflow) if "uses" in step]
    assert len(used) > 5
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action), action
    assert len(set(used)) == len({action.split("@")[0] for action in used}), "one version of each"
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, name
    systems = [
        WORKFLOWS[name]["jobs"][job]["strategy"]["matrix"]["os"]
        for name, job in (("test", "parts"), ("wheels", "wheels"))
    ]
    assert systems[0] == systems[1], "what is built is tested"


def test_tools_are_pinned() -> None:
    lines = [line for line in (ROOT / "release" / "tools.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in lines)
    assert {line.split("==")[0] for line in lines} >= {"build", "twine", "auditwheel", "cibuildwheel", "ziglang"}


def test_a_tag_alone_publishes() -> None:
    release = WORKFLOWS["release"]
    assert release[True] == {"push": {"tags": ["v*"]}}, "`on`, which YAML reads as true"
    check, build, publish = (release["jobs"][name] for name in ("check", "build", "publish"))
    assert any("release/version.py --tag" in step.get("run", "") for step in check["steps"])
    assert build == {"needs": "check", "uses": "./.github/workflows/wheels.yml"}
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    [upload] = [step for step in publish["steps"] if "pypi-publish" in step.get("uses", "")]
    assert upload["with"] == {"attestations": True}, "by identity, without a token"
    assert "workflow_call" in WORKFLOWS["wheels"][True]
    assert sum("twine check --strict" in step.get("run", "") for step in steps(WORKFLOWS["wheels"])) == 2
    assert any("auditwheel show" in step.get("run", "") for step in steps(WORKFLOWS["wheels"]))


def test_one_version() -> None:
    module = script("version")
    assert module.version() == twohot.__version__
    assert module.disagreements(None) == []
    assert str(CITATION["version"]) == twohot.__version__


def test_a_release_is_prepared_and_its_tag_checked(tmp_path: Path) -> None:
    module = script("version")
    for name in (module.PACKAGE, module.CHANGELOG, module.CITATION):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    before = module.version(tmp_path)
    assert len(module.disagreements(f"v{before}9", tmp_path)) == 2
    module.prepare("7.1.0", tmp_path, "2030-02-03")
    assert module.disagreements("v7.1.0", tmp_path) == []
    log = (tmp_path / module.CHANGELOG).read_text()
    assert "## Unreleased\n\n## 7.1.0 - 2030-02-03\n" in log
    assert module.disagreements("7.1.0", tmp_path) == ["the tag is 7.1.0, the package's version makes it v7.1.0"]
    (tmp_path / module.CITATION).write_text((tmp_path / module.CITATION).read_text().replace("7.1.0", "7.0.0"))
    assert len(module.disagreements("v7.1.0", tmp_path)) == 1
    with pytest.raises(SystemExit, match="expected a version"):
        module.prepare("7.1", tmp_path)


def test_addresses_are_of_one_repository() -> None:
    urls = PROJECT["urls"]
    assert set(urls) == {"Repository", "Documentation", "Changelog", "Issues"}
    repository = urls["Repository"]
    for name in ("Changelog", "Issues"):
        assert urls[name].startswith(f"{repository}/"), name
    assert CITATION["repository-code"] == repository
    assert CITATION["license"] == PROJECT["license"]


def test_the_paper_is_cited() -> None:
    [paper] = CITATION["references"]
    assert "2411.11188" in paper["url"]
    assert paper["year"] == 2024
    assert len(paper["authors"]) == 6


def test_licences_of_all_that_is_asked_for() -> None:
    licences = script("licences")
    page = licences.PAGE.read_text()
    rows = dict(re.findall(r"^\| (\S+) \| .* \| (.*) \|$", page, re.MULTILINE))
    rows.pop("package"), rows.pop("---")
    assert set(rows) == set(licences.asked_for()), "python release/licences.py"
    assert licences.NOT_SAID not in rows.values()
    assert page.startswith(licences.HEAD)


def test_the_dockerfile_copies_what_a_build_needs() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    kept = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert set(copied) == kept
    assert all((ROOT / name).exists() for name in copied)
    assert {PROJECT["readme"], "LICENSE", "licenses", "pyproject.toml", "CMakeLists.txt"} <= kept


def docker() -> bool:
    return (
        shutil.which("docker") is not None
        and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not docker(), reason="needs a running docker")
def test_the_dockerfile_builds_and_runs() -> None:
    built = subprocess.run(["docker", "build", "--quiet", str(ROOT)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    shown = subprocess.run(
        ["docker", "run", "--rm", built.stdout.strip(), "info"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert twohot.__version__ in shown.stdout
