import pandas as pd
import pytest

from cellabel.errors import InputError
from cellabel.stores import TableStore


@pytest.fixture(params=["local", "memory"])
def tables(request, tmp_path):
    return TableStore(tmp_path if request.param == "local" else f"memory://{tmp_path.name}/tables")


def test_a_table_comes_back_as_it_went(tables):
    table = pd.DataFrame({"Metadata_Well": ["A01", "A02"], "Nuclei_Count": [3, 4]})
    tables.write(table, "wells", "nuclei", "P1")
    pd.testing.assert_frame_equal(tables.read("wells", "nuclei", "P1"), table)
    assert tables.has("wells", "nuclei", "P1")
    assert tables.names("wells", "nuclei") == ["P1"]
    assert tables.names("cells") == []


def test_a_missing_or_damaged_table_is_named(tables):
    with pytest.raises(InputError, match="no table 'wells/P1'"):
        tables.read("wells", "P1")
    tables.path("wells", "P2").parent.mkdir(parents=True, exist_ok=True)
    tables.path("wells", "P2").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="is not a Parquet table"):
        tables.read("wells", "P2")


@pytest.mark.parametrize("part", ["..", "a/b", ""])
def test_no_path_leaves_the_store(tables, part):
    with pytest.raises(InputError, match="cannot name a table"):
        tables.path("wells", part)
