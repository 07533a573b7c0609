"""A host without a route and with an empty home: everything comes out of one bundle, behind all walls, and serves.

The bundle is made here, with the portable wheel, Perimeter's own and the index's; what follows runs in a network
namespace that has loopback and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.demo import MODEL, needs_demo
from tests.support.harness import SOURCE
from tests.support.wheels import portable_wheel

LIMIT_S = 1200
HOST = r"""
set -e
ip link set lo up; test -z "$(ip route)"
mkdir boot; tar -xf "$MEDIA/site.tar" -C boot MANIFEST.json MANIFEST.sig
openssl pkeyutl -verify -pubin -inkey "$MEDIA/publisher.key.pub" -rawin -in boot/MANIFEST.json \
    -sigfile boot/MANIFEST.sig
tar -xf "$MEDIA/site.tar" -C boot wheels
(cd boot && python3 -c 'import json
for member in json.load(open("MANIFEST.json"))["members"]:
    if member["name"].startswith("wheels/"): print(member["sha256"] + "  " + member["name"])' \
    | sha256sum --check --quiet)
python3 -m venv boot/env
boot/env/bin/pip --isolated install --quiet --no-index --find-links boot/wheels --require-hashes \
    --only-binary :all: --no-deps -r boot/wheels/requirements.txt
boot/env/bin/serve trust add "$MEDIA/publisher.key.pub" --name publisher --fingerprint "$FINGERPRINT"
boot/env/bin/serve bundle install "$MEDIA/site.tar" --into "$PWD/perimeter"
perimeter/bin/serve models verify
(umask 077; perimeter/bin/serve keys create --owner operator > key)
perimeter/bin/serve --model carried --sealed require --port 18123 2> serve.err & server=$!
for turn in $(seq 600); do
    perimeter/bin/python -c 'from urllib.request import urlopen; urlopen("http://127.0.0.1:18123/ready")' \
        2> /dev/null && break
    kill -0 $server || { cat serve.err; exit 1; }
    sleep 0.2
done
grep '^sealed    require' serve.err
perimeter/bin/serve bench run chat --url http://127.0.0.1:18123 --key-file key --requests 32 \
    -o result.json
kill -TERM $server; wait $server
perimeter/bin/serve doctor --egress --model carried --idle 5s
"""


@needs_demo
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace of its own takes root here")
def test_an_isolated_host_installs_serves_is_measured_and_watched(tmp_path: Path) -> None:
    """With tools of the system alone until the first environment stands; every command ends well."""
    wheel = portable_wheel()
    for program in ("openssl", "unshare", "ip", "strace"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    media, host = tmp_path / "media", tmp_path / "host"
    media.mkdir()
    (host / "home").mkdir(parents=True)
    publisher = {**os.environ, **{f"XDG_{name}_HOME": str(tmp_path / name) for name in ("DATA", "CONFIG", "CACHE")}}

    def serve(*arguments: str) -> str:
        argv = [sys.executable, "-m", "serving", *arguments]
        return subprocess.run(argv, cwd=SOURCE, env=publisher, check=True, stdout=subprocess.PIPE, text=True).stdout

    ours = tmp_path / "ours"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-build-isolation"]
    subprocess.run([*pip, "--no-deps", "-w", str(ours), str(SOURCE)], check=True)
    serve("models", "import", str(MODEL), "--name", "carried", "--licence", str(SOURCE / "LICENSE"))
    key = media / "publisher.key"
    fingerprint = serve("bundle", "keygen", str(key)).strip()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    platform = next(tag for tag in wheel.stem.rsplit("-", 1)[-1].split(".") if tag.startswith("manylinux_2_"))
    made_for = ("--platform", platform, "--python", python, "--lock", str(SOURCE / "locks" / "base.lock"))
    houses = ("--wheelhouse", str(wheel.parent), "--wheelhouse", str(ours))
    serve(
        "bundle",
        "create",
        "carried",
        "-o",
        str(media / "site.tar"),
        "--key",
        str(key),
        "--wheels",
        "base",
        *made_for,
        *houses,
    )
    key.unlink()
    environment = {
        "PATH": f"{Path(sys.executable).resolve().parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(host / "home"),
        "MEDIA": str(media),
        "FINGERPRINT": fingerprint,
        "LANG": "C.UTF-8",
    }
    argv = ["unshare", "--net", "bash", "-c", HOST]
    done = subprocess.run(argv, cwd=host, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "passed: 0 attempts" in done.stdout
    assert (host / "result.json").exists()
