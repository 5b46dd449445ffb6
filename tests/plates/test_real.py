"""Real exports; they lie outside the project (CELLABEL_TEST_DATA)."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from cellabel import InputError
from cellabel.plates import QuarantinedPlate, import_plate, open_acquisition
from cellabel.plates.quality import acquisition_features

pytestmark = pytest.mark.real
DATA = Path(os.environ.get("CELLABEL_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def data(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real images are absent: {path} (set CELLABEL_TEST_DATA)")
    return path


def copied(files: Iterable[Path], folder: Path, layout: str) -> Path:
    folder.mkdir()
    for path in files:
        shutil.copyfile(path, folder / path.name)
    (folder / "layout.yaml").write_text(layout)
    return folder


def reasons(folder: Path) -> str:
    return "\n".join(str(issue) for issue in open_acquisition(folder).issues)


def test_bbbc039_is_read_as_metaxpress_and_its_masks_are_not_images() -> None:
    found = open_acquisition(data("bbbc039"))
    assert found.layout == "metaxpress" and len(found.fields) == 10
    assert found.fields[0] == ("A02", 1) and ("O16", 3) in found.fields
    assert found.channels == ["w1"]
    assert found.image("A02", 1, "w1").shape == (520, 696)


def test_imagexpress_z_steps_wavelengths_and_metadata_are_read() -> None:
    folder = data("imagexpress", "ImageXpress_exported", "9987_Plate_3434")
    found = open_acquisition(folder)
    assert found.plate_id == "9987_Plate_3434"
    assert found.fields == [("B02", 1), ("B02", 2), ("B03", 1), ("B03", 2)]
    assert found.channels == ["nuclei", "gfp", "Texas Red"]
    assert found.pixel_size_um == pytest.approx(1.3672) and found.instrument == "ImageXpress 5165008"
    assert found.acquired_at is not None and found.acquired_at.year == 2024
    told = reasons(folder)
    assert "projections (ZStep_0)" in told and "names wavelength 4 (Cy5)" in told
    planes = [tifffile.imread(folder / f"TimePoint_1/ZStep_{z}/9987_B02_s1_w1.TIF") for z in (1, 2)]
    chosen = found.image("B02", 1, "nuclei")
    assert any(np.array_equal(chosen, plane) for plane in planes)


def test_imagexpress_time_points_become_sites_and_a_plate_without_sites_is_read() -> None:
    times = open_acquisition(data("imagexpress", "ImageXpress_exported", "9987_Plate_3435"))
    assert [site for well, site in times.fields if well == "B02"] == [1, 2, 3, 4]
    one = open_acquisition(data("imagexpress", "ImageXpress_exported", "9987_Plate_3420"))
    assert one.fields == [("B02", 1)] and one.channels == ["nuclei"]


def test_three_imagexpress_plates_in_one_folder_are_refused() -> None:
    with pytest.raises(InputError, match="3 MetaXpress plates"):
        open_acquisition(data("imagexpress"))


def test_a_plate_without_transmitted_light_is_quarantined(tmp_path: Path) -> None:
    folder = data("imagexpress", "ImageXpress_exported", "9987_Plate_3434")
    with pytest.raises(QuarantinedPlate, match="none of its channels"):
        import_plate(folder, tmp_path)


def test_a_phenix_field_is_stored_with_all_its_organelles(tmp_path: Path) -> None:
    files = sorted(data("phenix_pediatric", "orig").glob("*.tiff"))
    roles = "{ch1: transmitted, ch2: er, ch3: actin, ch4: mitochondria, ch5: nuclei, ch6: nucleoli}"
    folder = copied(files, tmp_path / "phenix", f"channels: {roles}\npixel_size_um: 0.598\nlayout: phenix\n")
    plate = import_plate(folder, tmp_path / "store")
    assert plate.channels == ("transmitted", "nuclei", "er", "actin", "nucleoli", "mitochondria")
    assert plate.acquired_at is not None and plate.acquired_at.year == 2024
    field = plate.wells["C03"].fields[3]
    for number, role in ((1, "transmitted"), (5, "nuclei")):
        assert np.array_equal(field.image(role), tifffile.imread(files[number - 1]))


AISEGCELL = r"""
pattern: '(?P<plate>[0-9A-Z]+)_(?P<position>p\d+)_t(?P<time>\d+)_z(?P<z>\d+)_(?P<channel>bf|nuc|mask)\.tif'
channels: {bf: transmitted, nuc: nuclei, mask: null}
pixel_size_um: 0.65
"""


def test_aisegcell_positions_become_wells_and_times_sites(tmp_path: Path) -> None:
    files = sorted(data("aisegcell", "fig10").glob("*.tif"))
    folder = copied(files, tmp_path / "ai", AISEGCELL)
    with pytest.raises(InputError, match="images of 2 plates"):
        open_acquisition(folder)
    (folder / "layout.yaml").write_text(AISEGCELL + "only: {plate: 210930MA20}\n")
    plate = import_plate(folder, tmp_path / "store")
    assert plate.plate_id == "210930MA20" and plate.channels == ("transmitted", "nuclei")
    assert list(plate.wells) == ["A01", "A02", "A03", "A04", "A05", "A06"]
    assert sum(1 for _ in plate.fields()) == 10
    image = plate.wells["A02"].fields[1].image("nuclei")
    assert image.dtype == np.uint8 and image.shape == (1024, 1024)
    assert np.array_equal(image, tifffile.imread(folder / "210930MA20_p0003_t00013_z001_nuc.tif"))


def test_celldetective_stacks_are_read_by_plane_and_a_field_without_a_channel_is_quarantined(
    tmp_path: Path,
) -> None:
    folder = data("celldetective_mcf7")
    files = [*folder.glob("?10_snap_?_?_?.tif"), folder / "april_303_preincup_snap_0_3_5.tif"]
    layout = r"pattern: '(?P<position>.+)\.tif'" "\nplanes: [brightfield, dead nuclei, effector, Hoechst]\n"
    folder = copied(files, tmp_path / "mcf7", layout)
    plate = import_plate(folder, tmp_path / "store")
    assert plate.channels == ("transmitted", "nuclei", "dead nuclei", "effector")
    assert plate.quarantined["reason"].tolist() == [
        "april_303_preincup_snap_0_3_5.tif: it holds 3 planes, not 4"
    ]
    stack = tifffile.imread(folder / "310_snap_2_2_2.tif")
    assert np.array_equal(plate.wells["A01"].fields[1].image("nuclei"), stack[3])


def test_a_focus_series_of_pngs_is_read(tmp_path: Path) -> None:
    layout = (
        r"pattern: '.*well-(?P<well>[A-Z]\d+),.*STITCHED,(?:z_depth-(?P<z>\d+)|.*?),"
        r"channel-(?P<channel>\w+),.*\.png'"
        "\nchannels: {DAPI_CONFOCAL: nuclei, PHASE_CONTRAST: transmitted}\n"
    )
    folder = copied(data("isl_condition_blue").glob("*.png"), tmp_path / "isl", layout)
    found = open_acquisition(folder)
    assert found.fields == [("A04", 1)]
    assert found.channels == ["transmitted", "nuclei", "MAP2_CONFOCAL", "NFH_CONFOCAL"]
    assert found.image("A04", 1, "transmitted").dtype == np.uint16
    assert "the sharpest" in reasons(folder)


def test_sharpness_of_real_bright_field_falls_with_blur() -> None:
    for path in sorted(data("aisegcell", "fig10").glob("*_bf.tif"))[::8]:
        image = tifffile.imread(path).astype(np.float32)
        fine = []
        for blur in (0, 1, 2, 4):
            features = acquisition_features(ndimage.gaussian_filter(image, blur) if blur else image)
            fine.append(features["sharpness_1"] + features["sharpness_2"])
        assert fine[1] > fine[2] > fine[3] and fine[0] > fine[2], path.name


def test_celldetective_is_read_by_its_own_lists_of_channels() -> None:
    found = open_acquisition(data("celldetective_mcf7"))
    assert found.layout == "stack" and len(found.fields) == 26 and found.pixel_size_um == 0.3112
    assert found.channels == ["transmitted", "nuclei", "dead_nuclei_channel", "effector_fluo_channel"]
    assert found.quarantined == {} and len(found.missing) == 2
    stack = tifffile.imread(data("celldetective_mcf7", "110_snap_0_1_10.tif"))
    assert np.array_equal(found.image("A01", 1, "nuclei"), stack[3])


def test_the_focus_series_of_sephace_is_kept_whole_and_read_where_it_is_sharp(tmp_path: Path) -> None:
    found = open_acquisition(data("sephace"))
    assert found.layout == "ics" and found.channels == ["transmitted", "nuclei"]
    assert found.pixel_size_um == pytest.approx(0.2, abs=0.001) and found.instrument == "Nikon 90i"
    assert found.acquired_at is not None and found.acquired_at.year == 2009
    field = import_plate(found, tmp_path).wells["A01"].fields[1]
    assert (field.n_planes("transmitted"), field.n_planes("nuclei")) == (6, 1)
    assert field.image("transmitted").shape == (1024, 1344)
    # Heights 1327.6, 1341.95, 1351.6, 1352.25, 1362, 1376.8: in focus at 1352.
    assert np.array_equal(field.image("transmitted"), field.image("transmitted", 3))
