"""Layouts that are more than names: written here to the vendors' conventions; real ones are in test_real."""

import gzip
import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from cellabel import InputError
from cellabel.plates import import_plate, open_acquisition, open_plate, read_plate
from cellabel.stores import PlateStore

from .conftest import picture


def told(folder: Path) -> str:
    return "\n".join(str(issue) for issue in open_acquisition(folder).issues)


# CellVoyager

MES = """<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementSetting xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"><bts:ChannelList>
<bts:Channel bts:Ch="1" bts:Target="Cells" bts:Kind="Brightfield" bts:Acquisition="BP525/50" />
<bts:Channel bts:Ch="2" bts:Target="blue" bts:Kind="ConfocalFluorescence" bts:Acquisition="BP445/45" />
</bts:ChannelList></bts:MeasurementSetting>"""
MRF = """<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementDetail bts:Version="1.0" bts:Title="T" bts:BeginTime="2021-06-14T09:13:26.1234567+01:00"
 bts:MeasurementSettingFileName="C:\\settings\\S.mes" bts:TargetSystem="CV8000"
 xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0">
<bts:MeasurementSamplePlate bts:Name="PL1" />
<bts:MeasurementChannel bts:Ch="1" bts:HorizontalPixelDimension="0.65" />
</bts:MeasurementDetail>"""


def record(name: str, row: int, column: int, field: int, channel: int, kind: str = "IMG") -> str:
    return (
        f'<bts:MeasurementRecord bts:Type="{kind}" bts:Column="{column}" '
        f'bts:Row="{row}" bts:TimePoint="1" bts:FieldIndex="{field}" bts:ZIndex="1" bts:Ch="{channel}">'
        f"{name}</bts:MeasurementRecord>"
    )


def image_name(well: str, field: int, channel: int) -> str:
    return f"PL1_{well}_T0001F{field:03d}L01A01Z01C{channel:02d}.tif"


@pytest.fixture
def cellvoyager(tmp_path: Path) -> Path:
    folder = tmp_path / "20210614T091326_CV"
    folder.mkdir()
    records = []
    for column in (1, 2):
        for field in (1, 2):
            for channel in (1, 2):
                name = image_name(f"B{column:02d}", field, channel)
                tifffile.imwrite(folder / name, picture(column * 100 + field * 10 + channel))
                records.append(record(name, 2, column, field, channel))
    records.append(record("laser failed", 2, 1, 1, 1, kind="ERR"))
    (folder / "MeasurementData.mlf").write_text(
        '<bts:MeasurementData xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0">'
        + "\n".join(records)
        + "</bts:MeasurementData>"
    )
    (folder / "MeasurementDetail.mrf").write_text(MRF)
    (folder / "S.mes").write_text(MES)
    return folder


def test_cellvoyager_records_tell_plate_time_channels_and_pixel_size(cellvoyager: Path) -> None:
    found = open_acquisition(cellvoyager)
    assert found.layout == "cellvoyager" and "as MeasurementData.mlf lists them" in found.explanation
    assert (found.plate_id, found.instrument, found.pixel_size_um) == ("PL1", "CV8000", 0.65)
    assert found.acquired_at is not None and found.acquired_at.isoformat().startswith("2021-06-14T08:13:26")
    assert found.fields == [("B01", 1), ("B01", 2), ("B02", 1), ("B02", 2)]
    assert found.channels == ["transmitted", "nuclei"]
    assert np.array_equal(found.image("B02", 1, "nuclei"), picture(212))
    assert "blue is taken as nuclei, as its metadata say '445 nm'" in told(cellvoyager)
    assert "1 errors of the instrument" in told(cellvoyager)


def test_images_that_cellvoyager_lists_and_that_are_lost_are_missing_fields(cellvoyager: Path) -> None:
    for channel in (1, 2):
        (cellvoyager / image_name("B02", 2, channel)).unlink()
    tifffile.imwrite(cellvoyager / image_name("H12", 1, 1), picture(0))
    found = open_acquisition(cellvoyager)
    assert found.quarantined == {("B02", 2): "no transmitted-light image"}
    assert "lists and that are not there: 2" in told(cellvoyager)
    assert "does not list were left out: 1" in told(cellvoyager) and "H12" not in found.wells


def test_cellvoyager_names_are_read_alone_and_no_listed_path_leaves_the_folder(cellvoyager: Path) -> None:
    outside = image_name("B01", 1, 1)
    tifffile.imwrite(cellvoyager.parent / outside, picture(5))
    mlf = cellvoyager / "MeasurementData.mlf"
    mlf.write_text(mlf.read_text().replace(f">{outside}<", f">..\\..\\{outside}<"))
    assert np.array_equal(open_acquisition(cellvoyager).image("B01", 1, "transmitted"), picture(111))
    mlf.write_text(mlf.read_text()[:500])
    assert "names alone are read" in told(cellvoyager)
    for path in cellvoyager.glob("*.m??"):
        path.unlink()
    found = open_acquisition(cellvoyager)
    assert found.plate_id == "PL1" and len(found.fields) == 4 and found.channels == ["w1", "w2"]


# Opera Phenix


def phenix_image(channel: int, name: str, kind: str, nm: str) -> str:
    return (
        f"<Image><URL>{name}</URL><ChannelID>{channel}</ChannelID><ChannelName>{kind} {channel}</ChannelName>"
        f"<ChannelType>{kind}</ChannelType><MainEmissionWavelength>{nm}</MainEmissionWavelength></Image>"
    )


def test_images_that_the_phenix_index_lists_and_that_are_lost_are_missing_fields(tmp_path: Path) -> None:
    names = {c: [f"r01c01f{f:02d}p01-ch{c}sk1fk1fl1.tiff" for f in (1, 2)] for c in (1, 2)}
    listed = [
        phenix_image(c, name, *(("Brightfield", "700") if c == 1 else ("Custom", "456")))
        for c, both in names.items()
        for name in both
    ]
    (tmp_path / "Index.idx.xml").write_text(f"<E><Images>{''.join(listed)}</Images></E>")
    for c in (1, 2):
        tifffile.imwrite(tmp_path / names[c][0], picture(c))
    found = open_acquisition(tmp_path)
    assert found.fields == [("A01", 1), ("A01", 2)] and found.channels == ["transmitted", "nuclei"]
    assert list(found.quarantined) == [("A01", 2)]
    assert "lists and that are not there: 2" in told(tmp_path)


# OME-TIFF


def ome_plate(folder: Path, *, companion: bool = False) -> Path:
    """Two wells of two fields, two channels and three planes, one file a field."""
    folder.mkdir()
    pixels = np.stack([[picture(10 * c + z) for z in range(3)] for c in range(2)])
    ome = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Plate ID="Plate:0" Name="OP1">'
    images, k = [], 0
    for row, column in ((0, 0), (2, 4)):
        ome += f'<Well ID="Well:{k}" Row="{row}" Column="{column}">'
        for _ in range(2):
            file = f"image{k}.ome.tif"
            ome += f'<WellSample ID="WellSample:{k}" Index="{k}"><ImageRef ID="Image:{k}"/></WellSample>'
            blocks = "".join(
                f'<TiffData FirstC="{c}" FirstZ="{z}" FirstT="0" IFD="{3 * c + z}" PlaneCount="1">'
                f'<UUID FileName="{file}">urn:uuid:{k}</UUID></TiffData>'
                for c in range(2)
                for z in range(3)
            )
            images.append(
                f'<Image ID="Image:{k}" Name="x"><AcquisitionDate>2024-01-02T03:04:05</AcquisitionDate>'
                f'<Pixels ID="Pixels:{k}" DimensionOrder="XYZCT" Type="uint16" SizeX="48" '
                f'SizeY="48" SizeZ="3" '
                f'SizeC="2" SizeT="1" PhysicalSizeX="325" PhysicalSizeXUnit="nm">'
                f'<Channel ID="Channel:{k}:0" Name="one" ContrastMethod="DIC"/>'
                f'<Channel ID="Channel:{k}:1" Name="two" EmissionWavelength="461"/>{blocks}</Pixels></Image>'
            )
            k += 1
        ome += "</Well>"
    ome += "</Plate>" + "".join(images) + "</OME>"
    for number in range(k):
        planes = (pixels + np.uint16(number)).reshape(6, 48, 48)
        with tifffile.TiffWriter(folder / f"image{number}.ome.tif") as tif:
            for page, plane in enumerate(planes):
                tif.write(plane, description=ome if page == 0 else None, metadata=None, contiguous=False)
    return folder


def test_ome_tiff_tells_plate_wells_channels_planes_and_pixel_size(tmp_path: Path) -> None:
    folder = ome_plate(tmp_path / "o")
    found = open_acquisition(folder)
    assert found.layout == "ome_tiff" and found.plate_id == "OP1"
    assert found.fields == [("A01", 1), ("A01", 2), ("C05", 1), ("C05", 2)]
    assert found.channels == ["transmitted", "nuclei"] and found.pixel_size_um == pytest.approx(0.325)
    assert found.acquired_at is not None and found.acquired_at.year == 2024
    planes = list(found.stack("C05", 2, "nuclei"))
    assert [int(plane[0, 0]) - 3 for plane in planes] == [int(picture(10 + z)[0, 0]) for z in range(3)]


def test_a_lost_file_of_an_ome_tiff_set_is_a_missing_field(tmp_path: Path) -> None:
    folder = ome_plate(tmp_path / "o")
    (folder / "image3.ome.tif").unlink()
    assert list(open_acquisition(folder).quarantined) == [("C05", 2)]


def test_an_ome_tiff_without_a_plate_gets_its_wells_from_names(tmp_path: Path) -> None:
    for well in ("B03", "B04"):
        tifffile.imwrite(
            tmp_path / f"scan_{well}.ome.tif",
            np.stack([picture(1), picture(2)]),
            metadata={"axes": "CYX", "Channel": {"Name": ["Brightfield", "DAPI"]}},
        )
    found = open_acquisition(tmp_path)
    assert found.fields == [("B03", 1), ("B04", 1)] and found.channels == ["transmitted", "nuclei"]
    assert np.array_equal(found.image("B04", 1, "nuclei"), picture(2))


# OME-Zarr


def hcs(path: Path, *, version: str, axes: str = "tczyx") -> np.ndarray:
    """A plate of one well and two fields as other writers make it; its pixels `(field, c, z, y, x)`."""
    pixels = np.stack(
        [[[picture(100 * f + 10 * c + z) for z in range(2)] for c in range(2)] for f in range(2)]
    )
    zarr_format = 2 if version == "0.4" else 3

    def group(folder: Path, ome: dict) -> None:
        attributes = ome if version == "0.4" else {"ome": {"version": version, **ome}}
        zarr.open_group(str(folder), mode="a", zarr_format=zarr_format).attrs.update(attributes)

    well = {"path": "B/3", "rowIndex": 0, "columnIndex": 0}
    plate = {
        "name": "HCS1",
        "version": version,
        "rows": [{"name": "B"}],
        "columns": [{"name": "3"}],
        "wells": [well],
    }
    group(path, {"plate": plate})
    group(path / "B/3", {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
    for field in range(2):
        image = path / "B/3" / str(field)
        scale = [{"type": "scale", "scale": [1, 1, 1, 0.5, 0.5]}]
        multiscale = {
            "version": version,
            "axes": [{"name": a, "type": "space", "unit": "micrometer"} for a in axes],
            "datasets": [{"path": "0", "coordinateTransformations": scale}],
        }
        names = [{"label": "Brightfield"}, {"label": "Hoechst"}]
        group(image, {"multiscales": [multiscale], "omero": {"channels": names}})
        array = zarr.create_array(
            str(image / "0"), data=pixels[field][None], chunks=(1, 1, 1, 48, 48), zarr_format=zarr_format
        )
        assert array.shape == (1, 2, 2, 48, 48)
    return pixels


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_existing_ome_zarr_plates_are_read_whoever_wrote_them(tmp_path: Path, version: str) -> None:
    pixels = hcs(tmp_path / "x" / "HCS1.zarr", version=version)
    for folder in (tmp_path / "x", tmp_path / "x" / "HCS1.zarr"):
        found = open_acquisition(folder)
        assert found.layout == "ome_zarr" and f"NGFF {version}" in found.explanation
        assert found.plate_id == "HCS1" and found.fields == [("B03", 1), ("B03", 2)]
        assert found.channels == ["transmitted", "nuclei"] and found.pixel_size_um == 0.5
        assert np.array_equal(np.stack(list(found.stack("B03", 2, "nuclei"))), pixels[1, 1])


def test_an_ome_zarr_plate_that_lost_a_chunk_lacks_that_image(tmp_path: Path) -> None:
    hcs(tmp_path / "HCS1.zarr", version="0.5")
    (tmp_path / "HCS1.zarr/B/3/1/0/c/0/1/0/0/0").unlink()
    found = open_acquisition(tmp_path)
    assert found.missing == {
        ("B03", 2): {"nuclei": "B/3/1/0: a part of the image is not there".replace("B/3", "HCS1.zarr/B/3")}
    }


@pytest.mark.parametrize("path", ["../../B/3", "B/../../x", "/etc", ""])
def test_no_path_leads_out_of_an_ome_zarr_plate(tmp_path: Path, path: str) -> None:
    hcs(tmp_path / "HCS1.zarr", version="0.4")
    attributes = tmp_path / "HCS1.zarr" / ".zattrs"
    content = json.loads(attributes.read_text())
    content["plate"]["wells"][0]["path"] = path
    attributes.write_text(json.dumps(content))
    with pytest.raises(InputError, match="cannot be used"):
        open_acquisition(tmp_path)


def test_an_own_plate_is_read_again_with_what_it_lacks(
    metaxpress: Callable[..., Path], tmp_path: Path
) -> None:
    folder = metaxpress()
    (folder / "P1_A01_s1_w2.tif").unlink()
    plate = import_plate(folder, tmp_path / "store")
    again = open_acquisition(Path(str(plate.path)))
    assert again.channels == list(plate.channels) and again.pixel_size_um == plate.pixel_size_um
    assert again.missing == {("A01", 1): {"nuclei": "no image"}}
    assert np.array_equal(again.image("B02", 2, "gfp"), plate.wells["B02"].fields[2].image("gfp"))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_plate_can_be_linked_instead_of_copied(tmp_path: Path, version: str) -> None:
    pixels = hcs(tmp_path / "HCS1.zarr", version=version)
    store = PlateStore(tmp_path / "store")
    plate = import_plate(tmp_path / "HCS1.zarr", store, link=True)
    assert sum(path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file()) < 10_000
    copied = import_plate(tmp_path / "HCS1.zarr", tmp_path / "copied")
    assert plate.content_hash == copied.content_hash and (store.record("HCS1") or {})["linked"] is True
    for one, other in zip(open_plate(store, "HCS1").fields(), copied.fields(), strict=True):
        for role in other.roles:
            assert np.array_equal(one.image(role), other.image(role))
            for plane in (0, 1, "maximum", "mean"):
                assert np.array_equal(one.image(role, plane), other.image(role, plane))
    assert np.array_equal(plate.wells["B03"].fields[2].image("nuclei", 1), pixels[1, 1, 1])
    assert plate.wells["B03"].fields[1].label_names == ()
    assert plate.registration.equals(copied.registration)


def test_a_linked_plate_that_changes_or_goes_is_told_and_never_read(tmp_path: Path) -> None:
    hcs(tmp_path / "HCS1.zarr", version="0.5")
    field = import_plate(tmp_path / "HCS1.zarr", tmp_path / "store", link=True).wells["B03"].fields[1]
    array = zarr.open_array(str(tmp_path / "HCS1.zarr/B/3/0/0"), mode="r+")
    array[0, 0, 0, 5, 5] += 1
    field.image("nuclei")
    with pytest.raises(InputError, match="has changed since it was verified"):
        field.image("transmitted", 0)
    shutil.move(tmp_path / "HCS1.zarr", tmp_path / "away")
    with pytest.raises(InputError, match="can no longer be read"):
        field.image("nuclei")


def test_a_linked_plate_is_copied_when_asked_and_a_copied_one_stays(tmp_path: Path) -> None:
    hcs(tmp_path / "HCS1.zarr", version="0.5")
    store = PlateStore(tmp_path / "store")
    linked = import_plate(tmp_path / "HCS1.zarr", store, link=True)
    assert import_plate(tmp_path / "HCS1.zarr", store, link=True).path == linked.path
    copied = import_plate(tmp_path / "HCS1.zarr", store)
    assert copied.path != linked.path and (copied.path / "B/03/1/0/zarr.json").exists()
    assert import_plate(tmp_path / "HCS1.zarr", store, link=True).path == copied.path


def test_only_ome_zarr_plates_are_linked_and_only_on_this_machine(
    metaxpress: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="read as metaxpress: only plates that are OME-Zarr"):
        import_plate(metaxpress(), tmp_path / "store", link=True)
    hcs(tmp_path / "HCS1.zarr", version="0.5")
    with pytest.raises(InputError, match="which other machines read"):
        import_plate(tmp_path / "HCS1.zarr", "memory://linked", link=True)


# Stacks with a JSON of channel names


def test_stacks_are_read_by_the_channel_names_beside_them(tmp_path: Path) -> None:
    names = {
        "one": ["brightfield_channel", "PI", "live_nuclei_channel"],
        "two": ["live_nuclei_channel", "brightfield_channel"],
    }
    for stem, channels in names.items():
        stack = np.stack([picture(len(stem) * 10 + k + ord(stem[0])) for k in range(len(channels))])
        tifffile.imwrite(tmp_path / f"{stem}.tif", stack, photometric="minisblack")
        (tmp_path / f"{stem}.json").write_text(json.dumps({"channels": channels, "spatial_calibration": 0.3}))
    tifffile.imwrite(tmp_path / "one_labelled.tif", picture(0))
    found = open_acquisition(tmp_path)
    assert found.layout == "stack" and found.channels == ["transmitted", "nuclei", "PI"]
    assert found.pixel_size_um == 0.3 and found.fields == [("A01", 1), ("A02", 1)]
    assert found.missing == {("A02", 1): {"PI": "no image"}}
    assert np.array_equal(found.image("A02", 1, "nuclei"), tifffile.imread(tmp_path / "two.tif")[0])
    (tmp_path / "one.json").write_text(json.dumps({"channels": ["brightfield_channel", "PI"]}))
    assert "it holds 3 planes, not 2" in open_acquisition(tmp_path).quarantined["A01", 1]


# ICS


def ics(path: Path, pixels: np.ndarray, *, compressed: bool = True, history: str = "") -> Path:
    height, width = pixels.shape
    header = (
        f"\t\nics_version\t2.0\nfilename\t{path.stem}\nlayout\tparameters\t3\nlayout\torder\tbits\tx\ty\n"
        f"layout\tsizes\t{8 * pixels.itemsize}\t{width}\t{height}\nrepresentation\tformat\tinteger\n"
        f"representation\tsign\tunsigned\nrepresentation\tbyte_order\t1\t2\n"
        f"representation\tcompression\t{'gzip' if compressed else 'uncompressed'}\n{history}end\n"
    )
    data = pixels.astype("<u2").tobytes()
    path.write_bytes(header.encode("latin-1") + (gzip.compress(data) if compressed else data))
    return path


def test_ics_images_tell_channel_time_and_pixel_size_and_heights_are_a_series(tmp_path: Path) -> None:
    bright = "history\ttype\tBrightfield\nhistory\tcube\tempty\nhistory\textents\t4.8e-05 4.8e-05\n"
    bright += "history\tdimensions\t48 48\nhistory\tunits\tm m\nhistory\tcreated on\t11:17:45 23\\10\\09\n"
    for height in ("9.5", "10.25"):
        ics(tmp_path / f"x-Z{height}.ics", picture(int(float(height))), history=bright)
    ics(
        tmp_path / "fl.ics",
        picture(3),
        compressed=False,
        history="history\ttype\tFluorescence\nhistory\tcube\tDAPI\n",
    )
    found = open_acquisition(tmp_path)
    assert found.layout == "ics" and found.channels == ["transmitted", "nuclei"]
    assert found.pixel_size_um == pytest.approx(1.0)
    assert found.acquired_at is not None and found.acquired_at.date().isoformat() == "2009-10-23"
    assert [int(plane[0, 0]) for plane in found.stack("A01", 1, "transmitted")] == [
        int(picture(9)[0, 0]),
        int(picture(10)[0, 0]),
    ]
    assert np.array_equal(found.image("A01", 1, "nuclei"), picture(3))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "giant", "no end"])
def test_a_damaged_ics_image_is_refused(tmp_path: Path, damage: str) -> None:
    path = ics(tmp_path / "A01.ics", picture(1), history="history\ttype\tBrightfield\n")
    ics(tmp_path / "A02.ics", picture(2), history="history\ttype\tBrightfield\n")
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[:-200]
    elif damage == "flipped":
        data[-300] ^= 16
    elif damage == "giant":
        data = data.replace(b"\t48\t48\n", b"\t100000\t100000\n")
    else:
        data = data[:120]
    path.write_bytes(data)
    found = open_acquisition(tmp_path)
    assert len(found.quarantined) == 1 or "header cannot be read: 1" in told(tmp_path)


# ND2 and LIF


class Reader:
    """As bioio's readers: two scenes of two channels and three planes."""

    scenes = ("A/1", "B/2")
    channel_names = ("TL DIC", "DAPI")
    physical_pixel_sizes = types.SimpleNamespace(X=0.2)
    dims = types.SimpleNamespace(order="TCZYX", shape=(1, 2, 3, 48, 48))

    def __init__(self, path: str) -> None:
        self.scene = 0

    def set_scene(self, scene: int) -> None:
        self.scene = scene

    def get_image_dask_data(self, axes: str, **at: int) -> types.SimpleNamespace:
        assert axes == "YX"
        pixels = picture(100 * self.scene + 10 * at["C"] + at["Z"])
        return types.SimpleNamespace(compute=lambda scheduler: pixels)


def test_scenes_of_lif_and_nd2_files_are_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioio_lif", types.SimpleNamespace(Reader=Reader))
    (tmp_path / "x.lif").write_bytes(b"x")
    found = open_acquisition(tmp_path)
    assert found.layout == "container" and found.fields == [("A01", 1), ("B02", 1)]
    assert found.channels == ["transmitted", "nuclei"] and found.pixel_size_um == 0.2
    assert [int(p[0, 0]) for p in found.stack("B02", 1, "nuclei")] == [
        int(picture(110 + z)[0, 0]) for z in range(3)
    ]


def test_without_bioio_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bioio_nd2", None)
    (tmp_path / "x.nd2").write_bytes(b"x")
    with pytest.raises(InputError, match=r"read by bioio-nd2, which is not installed: run pip install"):
        open_acquisition(tmp_path)


# Focus series


def test_all_planes_are_kept_and_the_recipe_chooses_among_them(tmp_path: Path) -> None:
    plate = import_plate(ome_plate(tmp_path / "o"), tmp_path / "store")
    found = open_acquisition(tmp_path / "o")
    field = read_plate(plate.path).wells["A01"].fields[2]
    planes = np.stack(list(found.stack("A01", 2, "nuclei")))
    assert field.n_planes("nuclei") == 3
    for z in range(3):
        assert np.array_equal(field.image("nuclei", z), planes[z])
    assert np.array_equal(field.image("nuclei"), found.image("A01", 2, "nuclei"))
    assert np.array_equal(field.image("nuclei", "maximum"), planes.max(axis=0))
    assert np.array_equal(field.image("nuclei", "mean"), np.rint(planes.mean(axis=0)).astype(np.uint16))
    with pytest.raises(InputError, match="no plane 3: give sharpest, maximum, mean or a number below 3"):
        field.image("nuclei", 3)


def test_channels_may_have_series_of_different_depths(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    tifffile.imwrite(
        folder / "p_A01_s1_w1.tif", np.stack([picture(k) for k in range(5)]), photometric="minisblack"
    )
    tifffile.imwrite(folder / "p_A01_s1_w2.tif", picture(9))
    (folder / "acquisition.json").write_text('{"channels": {"1": "transmitted", "2": "nuclei"}}')
    plate = import_plate(folder, tmp_path / "store")
    field = plate.wells["A01"].fields[1]
    assert (field.n_planes("transmitted"), field.n_planes("nuclei")) == (5, 1)
    assert np.array_equal(field.image("nuclei", "maximum"), picture(9))
    assert np.array_equal(field.image("transmitted", 4), picture(4))
    again = open_acquisition(Path(str(plate.path)))
    assert len(again.stack("A01", 1, "nuclei")) == 1 and len(again.stack("A01", 1, "transmitted")) == 5


def test_a_map_in_the_settings_gives_roles_to_unknown_names(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "p_A01_s1_w1.tif", picture(1))
    tifffile.imwrite(tmp_path / "p_A01_s1_w2.tif", picture(2))
    found = open_acquisition(tmp_path, channels={"w1": "transmitted", "w2": "er"})
    assert found.channels == ["transmitted", "er"]
