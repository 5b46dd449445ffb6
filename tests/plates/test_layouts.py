from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellabel import InputError
from cellabel.plates import LAYOUTS, open_acquisition


def write(folder: Path, *names: str, shape: tuple[int, ...] = (32, 32)) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.random.default_rng(number).integers(0, 999, shape).astype(np.uint16))
    return folder


def reasons(folder: Path) -> str:
    return "\n".join(str(issue) for issue in open_acquisition(folder).issues)


HTD = """"HTSInfoFile", Version 1.0
"Description", "two wells\xa0with commas, and accents"
"XWells", 12
"YWells", 8
"WellsSelection1", TRUE, TRUE, TRUE
"Waves", TRUE
"NWavelengths", 3
"WaveName1", "TL DIC"
"WaveName2", "DAPI"
"WaveName3", "Cy5"
"EndFile"
"""


def test_metaxpress_names_are_read_with_and_without_site_channel_and_guid(tmp_path: Path) -> None:
    guid = "051DAA7C-7042-435F-99F0-1E847D9B42CB"
    write(tmp_path, f"IXMtest_A02_s1_w1{guid}.tif", "IXMtest_A03_w1.tif", "IXMtest_P24.TIF")
    found = open_acquisition(tmp_path)
    assert found.layout == "metaxpress"
    assert found.fields == [("A02", 1), ("A03", 1), ("P24", 1)]
    assert found.channels == ["w1"]


def test_a_channel_suffix_is_not_taken_for_a_well_of_row_w(tmp_path: Path) -> None:
    write(tmp_path, "x_W01_s1_w1.tif", "x_W01_s1_w2.tif", "x_W02_w1.tif")
    assert open_acquisition(tmp_path).wells == ["W01", "W02"]


def test_a_file_whose_well_is_on_no_plate_is_not_read_as_another_well(tmp_path: Path) -> None:
    write(tmp_path, "p_A01_s1_w1.tif", "p_Q99_s1_w1.tif", "p_Q99_w1.tif")
    assert open_acquisition(tmp_path).wells == ["A01"]
    assert "named otherwise: 2 (p_Q99_s1_w1.tif, p_Q99_w1.tif)" in reasons(tmp_path)


def test_the_htd_file_names_wavelengths_and_tells_what_is_absent(tmp_path: Path) -> None:
    write(tmp_path, "p_A01_s1_w1.tif", "p_A01_s1_w2.tif", "p_A02_s1_w1.tif", "p_A02_s1_w2.tif")
    (tmp_path / "p.HTD").write_bytes(HTD.encode("latin-1"))
    found = open_acquisition(tmp_path)
    assert found.channels == ["transmitted", "nuclei"]
    told = [str(issue) for issue in found.issues]
    assert any(t.startswith("A03") and "selects this well" in t for t in told)
    assert any("Cy5" in t and "no image shows it" in t for t in told)


def test_thumbnails_truth_hidden_files_and_links_are_no_images(tmp_path: Path) -> None:
    source = write(
        tmp_path / "plate",
        "p_A01_s1_w1.tif",
        "p_A01_s1_w1_thumb051DAA7C-7042-435F-99F0-1E847D9B42CB.tif",
        "truth/p_A02_s1_w1.tif",
        ".hidden/p_A03_s1_w1.tif",
        "._p_A04_s1_w1.tif",
    )
    (source / "Thumbs.db").write_bytes(b"x")
    (source / ".DS_Store").write_bytes(b"x")
    (source / "p_A05_s1_w1.tif").symlink_to(source / "p_A01_s1_w1.tif")
    (source / "p_A06_s1_w1.tif").mkdir()
    found = open_acquisition(source)
    assert found.wells == ["A01"]
    assert "thumbnails that were left out: 1" in reasons(source)


def test_several_metaxpress_plates_in_one_folder_are_refused_unless_one_is_chosen(tmp_path: Path) -> None:
    write(tmp_path, "one_A01_s1_w1.tif", "two_A01_s1_w1.tif")
    with pytest.raises(InputError, match="images of 2 MetaXpress plates"):
        open_acquisition(tmp_path)
    (tmp_path / "layout.yaml").write_text("layout: metaxpress\nonly: {plate: two}\n")
    assert open_acquisition(tmp_path).wells == ["A01"]


def test_the_sharpest_z_step_is_read_and_projections_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 2000, (32, 32)).astype(np.uint16)
    flat = np.full((32, 32), 1000, np.uint16)
    for step, pixels in ((0, sharp * 2), (1, flat), (2, sharp), (3, flat)):
        path = tmp_path / "TimePoint_1" / f"ZStep_{step}" / "p_A01_s1_w1.tif"
        path.parent.mkdir(parents=True)
        tifffile.imwrite(path, pixels)
    (tmp_path / "acquisition.json").write_text('{"channels": {"1": "transmitted"}}')
    found = open_acquisition(tmp_path)
    assert np.array_equal(found.image("A01", 1, "transmitted"), sharp)
    assert "z-step 2 of 1, 2, 3 is read, the sharpest" in reasons(tmp_path)
    assert "projections" in reasons(tmp_path)


def test_the_pages_of_one_file_are_a_focus_series(tmp_path: Path) -> None:
    stack = np.full((5, 32, 32), 500, np.uint16)
    stack[3] = np.random.default_rng(0).integers(0, 1000, (32, 32))
    tifffile.imwrite(tmp_path / "p_A01_s1_w1.tif", stack, photometric="minisblack")
    found = open_acquisition(tmp_path)
    assert np.array_equal(found.image("A01", 1, "w1"), stack[3])
    assert "plane 4 of 5" in reasons(tmp_path)


def test_time_points_become_sites(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(f"TimePoint_{t}/p_A01_s{s}_w1.tif" for t in (1, 2, 10) for s in (1, 2)),
        "TimePoint_2/p_A02_s2_w1.tif",
    )
    found = open_acquisition(tmp_path)
    assert found.fields == [("A01", site) for site in range(1, 7)] + [("A02", 1)]
    assert "3 time points" in reasons(tmp_path)
    last = tifffile.imread(tmp_path / "TimePoint_10" / "p_A01_s2_w1.tif")
    assert np.array_equal(found.image("A01", 6, "w1"), last)


INDEX = """<?xml version="1.0" encoding="utf-8"?>
<EvaluationInputData xmlns="43B2A954-E3C3-47E1-B392-6635266B0DD3/HarmonyV7">
  <InstrumentType>Phenix</InstrumentType>
  <Plates><Plate><PlateID>BR42</PlateID></Plate></Plates>
  <Images>
    <Image Version="1"><ChannelID>1</ChannelID><ChannelName>Brightfield</ChannelName>
      <ImageResolutionX Unit="m">5.97E-07</ImageResolutionX>
      <AbsTime>2024-07-04T20:05:01.3692001+02:00</AbsTime></Image>
    <Image Version="1"><ChannelID>2</ChannelID><ChannelName>HOECHST 33342</ChannelName></Image>
  </Images>
</EvaluationInputData>
"""


def test_phenix_names_and_the_index_file_are_read(tmp_path: Path) -> None:
    names = [f"Images/r03c12f07p01-ch{c}sk1fk1fl1.tiff" for c in (1, 2)]
    write(tmp_path, *names, "Images/r03c12f08p01-ch1sk1fk1fl1.tiff")
    (tmp_path / "Images" / "Index.idx.xml").write_text(INDEX)
    found = open_acquisition(tmp_path)
    assert found.layout == "phenix" and "Index.idx.xml" in found.explanation
    assert (found.plate_id, found.instrument) == ("BR42", "Phenix")
    assert found.fields == [("C12", 7), ("C12", 8)]
    assert found.channels == ["transmitted", "nuclei"]
    assert found.pixel_size_um == pytest.approx(0.597)
    assert found.acquired_at is not None and found.acquired_at.isoformat().startswith(
        "2024-07-04T18:05:01.369200"
    )
    assert "C12 site 8 nuclei: no image (stain missing)" in reasons(tmp_path)


def test_a_damaged_index_file_is_an_issue_and_no_failure(tmp_path: Path) -> None:
    write(tmp_path, "r01c01f01p01-ch1sk1fk1fl1.tiff")
    (tmp_path / "Index.xml").write_text(INDEX[:400])
    assert "Index.xml cannot be read to its end" in reasons(tmp_path)


PATTERN = r"""
pattern: '(?P<plate>[a-z]+)_(?P<position>p\d+)_t(?P<time>\d+)_(?P<channel>bf|nuc|mask)\.tif'
channels: {bf: transmitted, nuc: nuclei, mask: null}
pixel_size_um: 0.5
instrument: home made
"""


def test_a_layout_file_reads_positions_times_and_one_of_several_plates(tmp_path: Path) -> None:
    names = [
        f"{plate}_p{p}_t{t}_{c}.tif" for plate in "ab" for p in (3, 7) for t in (1, 9) for c in ("bf", "nuc")
    ]
    write(tmp_path, *names, "a_p3_t1_mask.tif")
    (tmp_path / "layout.yaml").write_text(PATTERN)
    with pytest.raises(InputError, match=r"only: \{plate: a\}"):
        open_acquisition(tmp_path)
    (tmp_path / "layout.yaml").write_text(PATTERN + "only: {plate: b}\n")
    found = open_acquisition(tmp_path)
    assert found.plate_id == "b" and found.instrument == "home made" and found.pixel_size_um == 0.5
    assert found.fields == [("A01", 1), ("A01", 2), ("A02", 1), ("A02", 2)]
    assert found.channels == ["transmitted", "nuclei"]
    assert np.array_equal(found.image("A02", 2, "nuclei"), tifffile.imread(tmp_path / "b_p7_t9_nuc.tif"))
    assert "p3 is A01, p7 is A02" in reasons(tmp_path)


def test_a_layout_file_may_name_the_wells_of_positions(tmp_path: Path) -> None:
    write(tmp_path, "a_p3_t1_bf.tif", "a_p4_t1_bf.tif", "a_p7_t1_bf.tif")
    (tmp_path / "layout.yaml").write_text(PATTERN + "wells: {p3: H12, p4: h12, p7: B3}\n")
    assert open_acquisition(tmp_path).fields == [("B03", 1), ("H12", 1), ("H12", 2)]
    (tmp_path / "layout.yaml").write_text(PATTERN + "wells: {p3: H12}\n")
    with pytest.raises(InputError, match="'p4' has no well"):
        open_acquisition(tmp_path)


def test_a_layout_file_may_lie_elsewhere_and_describe_row_column_and_path(tmp_path: Path) -> None:
    source = write(tmp_path / "images", "3/12/site2/bf.tif", "3/11/site2/bf.tif")
    layout = tmp_path / "mine.yaml"
    layout.write_text(
        r"pattern: '(?P<row>\d+)/(?P<column>\d+)/site(?P<site>\d)/(?P<channel>\w+)\.tif'" "\nplate_id: X"
    )
    found = open_acquisition(source, layout=str(layout))
    assert found.fields == [("C11", 2), ("C12", 2)] and found.channels == ["transmitted"]


def test_planes_of_a_file_can_be_channels(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 999, (4, 32, 32)).astype(np.uint16)
    # The way in which some writers store any stack of four: as a colour image in separate planes.
    tifffile.imwrite(tmp_path / "A01.tif", stack, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "A02.tif", stack[:3], photometric="minisblack")
    text = r"pattern: '(?P<well>[A-Z]\d\d)\.tif'" "\nplanes: [brightfield, dead nuclei, effector, Hoechst]\n"
    (tmp_path / "layout.yaml").write_text(text)
    found = open_acquisition(tmp_path)
    assert found.channels == ["transmitted", "nuclei", "dead nuclei", "effector"]
    assert np.array_equal(found.image("A01", 1, "nuclei"), stack[3])
    with pytest.raises(InputError, match="holds 3 planes, not 4"):
        found.image("A02", 1, "nuclei")


def test_a_layout_can_be_forced_by_name(tmp_path: Path) -> None:
    write(tmp_path, "p_A01_s1_w1.tif", "p_A02_s1_w1.tif", "r01c01f01p01-ch1sk1fk1fl1.tiff")
    assert "metaxpress" in open_acquisition(tmp_path).explanation
    assert open_acquisition(tmp_path, layout="phenix").wells == ["A01"]
    with pytest.raises(InputError, match="No layout is called 'harmony'"):
        open_acquisition(tmp_path, layout="harmony")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pattern: '('", "no regular expression"),
        ("pattern: '(?P<channel>x)'", "must have one of the groups"),
        ("pattern: '(?P<well>x)'", "and the group channel"),
        (r"pattern: '(?P<well>\w+?)_(?P<weel>.*)(?P<channel>x)'", "has a group 'weel'"),
        ("pattern: [", "no valid YAML|not valid YAML"),
        ("- a\n- b", "must hold names and values"),
        ("patern: x", "patern"),
        ("pixel_size_um: -1", "pixel_size_um"),
        ("layout: harmony", "asks for the layout 'harmony'"),
        ("layout: regex", "needs a layout.yaml with a `pattern`"),
        (r"pattern: 'p_(?P<well>\w+)_s(?P<site>.)_(?P<channel>..)\.tif'", "'Q99' is no well"),
        (
            r"pattern: 'nothing(?P<well>\w+)(?P<channel>x)'",
            "holds no image that is named as the layout regex",
        ),
        ("channels: {w1: gfp, w2: gfp}", "two channels are given the role 'gfp'"),
        ("channels: {w1: null, w2: null}", "no images of the channels"),
    ],
)
def test_a_layout_file_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    write(tmp_path, "p_Q99_s1_w1.tif", "p_A01_s1_w1.tif", "p_A01_s1_w2.tif")
    (tmp_path / "layout.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        open_acquisition(tmp_path)
    assert "\n" not in str(caught.value)


def test_known_names_become_roles_and_unknown_ones_are_kept_and_listed(tmp_path: Path) -> None:
    names = ["DIC", "Hoechst 33342", "FITC", "Cy5", "GFP", "Phalloidin", "dead nuclei", "bright_field_z"]
    write(tmp_path, *(f"A01-{name}.tif" for name in names))
    (tmp_path / "layout.yaml").write_text(r"pattern: '(?P<well>[A-Z]\d\d)-(?P<channel>.+)\.tif'")
    found = open_acquisition(tmp_path)
    # Of two names for one role the first keeps it.
    assert found.channels == [
        "transmitted",
        "nuclei",
        "gfp",
        "actin",
        "Cy5",
        "GFP",
        "bright_field_z",
        "dead nuclei",
    ]
    told = reasons(tmp_path)
    assert "Cy5: the channel is not known" in told and "GFP: another channel is gfp already" in told


def test_every_layout_has_the_one_signature() -> None:
    for name, find in LAYOUTS.items():
        assert find.__name__ == "find", name
        assert list(find.__annotations__)[:3] == ["folder", "files", "settings"]
