from collections.abc import Callable
from pathlib import Path

import pytest

from cellabel import InputError
from cellabel.plates import PLAN_ROLES, open_acquisition, read_plan
from cellabel.plates._plan import plan_records, plan_table

Folder = Callable[..., Path]
HEADER = (
    "Metadata_Well,clone,parent,passage,day,replicate,role,seeding_density,medium,fixation,stain_lot,order\n"
)


def plan(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plate_plan.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plan_is_read_with_types_wells_in_order_and_defaults(tmp_path: Path) -> None:
    text = (
        "\ufeff"
        + HEADER
        + 'b2,c2,,11,2.5,1,Blank,1e5,"CD CHO, plus",PFA,lot 1,2\n\nA1,c1,CHO-K1,10,,2,,2e5,,,,1\n'
    )
    table = read_plan(plan(tmp_path, text))
    assert list(table.index) == ["A01", "B02"] and table.index.name == "Metadata_Well"
    assert list(table["role"]) == ["sample", "blank"]
    assert table["passage"].tolist() == [10, 11] and table["passage"].dtype.kind == "i"
    assert table["day"].isna().tolist() == [True, False] and table.loc["B02", "day"] == 2.5
    assert table.loc["B02", "medium"] == "CD CHO, plus" and table.loc["A01", "medium"] is None


def test_columns_of_ones_own_are_kept(tmp_path: Path) -> None:
    table = read_plan(plan(tmp_path, "Metadata_Well,clone,operator\nA01,c1,ada\n"))
    assert table.loc["A01", "operator"] == "ada"


def test_a_plan_survives_being_stored(tmp_path: Path) -> None:
    table = read_plan(plan(tmp_path, HEADER + "A01,c1,,10,,2,,2e5,,,,1\nB02,c2,p,11,2,1,blank,,m,,,\n"))
    assert plan_table(plan_records(table)).equals(table)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEADER + "Z99,c,,,,,,,,,,\n", "'Z99' is no well"),
        (HEADER + ",c,,,,,,,,,,\n", "'' is no well"),
        (HEADER + "A01,c,,,,,,,,,,\nA1,d,,,,,,,,,,\n", "well A01 has two rows"),
        (HEADER + "A01,c,,,,,mother,,,,,\n", "unknown role 'mother'"),
        (HEADER + "A01,c,,P10,,,,,,,,\n", "passage of well A01 is 'P10'"),
        (HEADER + "A01,c,,nan,,,,,,,,\n", "passage of well A01 is 'nan'"),
        (HEADER + "A01,c,,,,,,,,,,,surplus\n", "row 2: 13 cells under 12 names"),
        ("well,clone\nA01,c\n", "Metadata_Well"),
        ("Metadata_Well,clone,clone\nA01,c,c\n", "distinct names"),
        ("", "Metadata_Well"),
        ('Metadata_Well,clone\n"A01,c\n', "cannot be read as a table"),
    ],
)
def test_a_plan_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read_plan(plan(tmp_path, text))
    assert "\n" not in str(caught.value) and "plate_plan.csv" in str(caught.value)


def test_every_role_is_accepted(tmp_path: Path) -> None:
    rows = "".join(f"A{k:02d},{role}\n" for k, role in enumerate(PLAN_ROLES, start=1))
    assert list(read_plan(plan(tmp_path, "Metadata_Well,role\n" + rows))["role"]) == list(PLAN_ROLES)


def test_no_plan_binary_plan_and_empty_plan(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00A")
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(tmp_path / "binary.csv")
    with pytest.raises(InputError, match="no well"):
        read_plan(plan(tmp_path, HEADER))


def test_a_plan_beside_the_images_is_joined_and_compared_with_them(metaxpress: Folder) -> None:
    folder = metaxpress()
    (folder / "plate_plan.csv").write_text("Metadata_Well,clone\nA01,c1\nC03,c3\n")
    found = open_acquisition(folder)
    assert found.plan is not None and list(found.plan.index) == ["A01", "C03"]
    told = {str(issue) for issue in found.issues}
    assert told == {
        "C03: plate_plan.csv names this well, no image shows it",
        "B02: imaged, but not in plate_plan.csv",
    }
    (folder / "plate_plan.csv").write_text("Metadata_Well,clone\nH11,c1\n")
    with pytest.raises(InputError, match="another plate's plan"):
        open_acquisition(folder)
