"""The reading of files, folders and notebooks."""

from pathlib import Path

import pytest
from tools.doctor.examination import examine
from tools.doctor.sources import find_sources

from .samples import Marks, expected, found, notebook, write

HAZARD = "import threading\nthreading.Thread(target=print).start()\n"
SERVES = "from flask import Flask\napp = Flask(__name__)\n"
CELLS = {
    "line magics": "%load_ext autoreload\n%matplotlib inline\nvalue = 1",
    "magic in a block": "if True:\n    %time value = 1\n    !ls -l \\\n        /\n",
    "assigned commands": "files = !ls\nwhere = %pwd\nprint(files, where)",
    "timed statements": "%time x = 1\n%timeit -n 10 -r 3 sum([1])",
    "packages": "pip install flask\nconda install -y numpy",
    "help": "value = 1\nvalue?\nvalue.real??",
    "cell magic": "%%time\nvalue = 1",
    "another language": "%%bash\nls | grep )(",
    "SQL": "%%sql\nselect * from (",
    "await": "import asyncio\nawait asyncio.sleep(0)",
    "names of IPython": "display(In, Out, _, _1, _i1, _dh)\nget_ipython()",
    "patterns": "match 1:\n    case {'a': q, **rest}:\n        q, rest\n    case [a, *b]:\n        a, b",
    "modulo on its own line": "value = (5\n% 2)",
    "empty": "",
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_ipython_is_read(name: str, tmp_path: Path) -> None:
    """IPython's commands are not errors, and define their names."""
    write(tmp_path, {"a.ipynb": notebook(CELLS[name])})

    assert examine([tmp_path])[0] == []


def test_a_place_in_a_notebook_has_cell_and_line(tmp_path: Path) -> None:
    """Cells are counted from 1, including prose, and lines are counted per cell."""
    write(tmp_path, {"a.ipynb": notebook("#md prose", SERVES, "\n\n%%time\n" + HAZARD)})

    (finding,) = examine([tmp_path / "a.ipynb"])[0]

    assert (finding.rule, finding.place.cell, finding.place.line) == ("N401", 3, 3)
    assert str(finding.place).endswith("a.ipynb:cell 3:3:1")


def test_a_broken_cell_costs_only_itself(tmp_path: Path) -> None:
    """A cell that does not parse is one remark; other cells are checked, and its names count as defined."""
    write(tmp_path, {"a.ipynb": notebook(SERVES, "def rows(:\n    pass", HAZARD, "rows()\nlost()")})

    findings, _ = examine([tmp_path])

    assert found(findings) == Marks([("X901", 2, 1), ("N401", 3, 2), ("X901", 4, 2)])
    assert findings[-1].message == "no cell defines `lost`"


def test_a_notebook_beside_a_service_may_send_statements(tmp_path: Path) -> None:
    """Cells that use the service's notebook session may send statements, and share no session."""
    ask = "with session() as s:\n    s.execute('select 1')"
    kept = (
        "import sqlalchemy.orm as o\nkept = o.Session(engine)\n@app.get('/')\ndef index():\n    kept.commit()"
    )
    cells = (SERVES, "engine = create_engine('')\nBase.metadata.create_all(engine)", ask, kept)
    orm = "from sqlalchemy import create_engine\nfrom sqlalchemy.orm import {}\n"
    own = orm.format("declarative_base, Session as session") + "Base = declarative_base()"
    service = orm.format("declarative_base") + "Base = declarative_base()\n"
    service += "from service.foundation.notebook import session"
    write(tmp_path, {"beside/a.ipynb": notebook(service, *cells), "apart/a.ipynb": notebook(own, *cells)})

    apart = found(examine([tmp_path / "apart"])[0])

    assert found(examine([tmp_path / "beside"])[0]) == Marks([("N103", 5, 2)])
    # Servers load this file, whatever it imports.
    write(tmp_path, {"served/app.py": "\n".join([service, *cells])})
    assert {finding.rule for finding in examine([tmp_path / "served"])[0]} >= {"N102", "N103"}
    assert apart - Marks([("N103", 5, 2)]) == Marks([("N102", 3, 2), ("N102", 4, 2)])


def test_a_file_that_a_cell_writes_is_read(tmp_path: Path) -> None:
    """The body of %%writefile is a file next to the notebook, which other cells can import."""
    body = "%%writefile app.py\n" + SERVES + HAZARD
    write(tmp_path, {"a.ipynb": notebook("import app", body)})

    (finding,) = examine([tmp_path])[0]

    assert (finding.rule, finding.place.cell, finding.place.line) == ("N401", 2, 5)


def test_old_and_foreign_notebooks_are_read(tmp_path: Path) -> None:
    """Format 3 is read, a notebook in another language is skipped, and invalid JSON is a remark."""
    old = '{"worksheets": [{"cells": [{"cell_type": "code", "input": ["def broken("]}]}]}'
    julia = notebook("f(x) = )(").replace('"python"', '"julia"')
    write(tmp_path, {"old.ipynb": old, "julia.ipynb": julia, "none.ipynb": "no JSON", "list.ipynb": "[]"})

    findings, files = examine([tmp_path])

    assert [finding.place.path.rpartition("/")[2] for finding in findings] == [
        "list.ipynb",
        "none.ipynb",
        "old.ipynb",
    ]
    assert {finding.rule for finding in findings} == {"X901"}
    assert files == 4


def test_a_notebook_without_views_gets_one_note(tmp_path: Path) -> None:
    """An analysis that keeps sessions gets one remark that names them, and none about its queries."""
    imports = "from sqlalchemy import create_engine\nfrom sqlalchemy.orm import Session"
    write(
        tmp_path,
        {
            "a.ipynb": notebook(
                imports,
                "e = create_engine('sqlite://')\na = Session(e)\nb = e.connect()",
                "b.execute('select 1')",
            )
        },
    )

    (finding,) = examine([tmp_path])[0]

    assert (finding.rule, finding.level, len(finding.uses)) == ("N101", "note", 2)
    assert "`a`, `b`" in finding.message


def test_a_folder_is_read_without_its_tests(tmp_path: Path) -> None:
    """Tests, hidden folders and environments are skipped, but explicitly named files are not."""
    skipped = ["tests/a.py", "test_a.py", "a_test.py", "conftest.py", ".hidden/a.py", "node_modules/a.py"]
    write(
        tmp_path, dict.fromkeys([*skipped, "env/lib/a.py"], HAZARD) | {"env/pyvenv.cfg": "", "app.py": SERVES}
    )

    assert [source.path.name for source in find_sources([tmp_path])] == ["app.py"]
    assert [source.path.name for source in find_sources([tmp_path / "test_a.py"])] == ["test_a.py"]


def test_a_program_beside_the_application_is_not_served(tmp_path: Path) -> None:
    """A file that no served module imports is a program, which may start threads."""
    files = {"app.py": SERVES + "import jobs\n", "jobs.py": HAZARD, "wait.py": HAZARD, "scripts/a.py": HAZARD}
    write(tmp_path, files)

    (finding,) = examine([tmp_path])[0]

    assert finding.place.path.endswith("/jobs.py")


def test_a_command_that_builds_the_application_is_not_served(tmp_path: Path) -> None:
    """A file without views that reads arguments is a command, even if it builds the application."""
    factory = "from flask import Flask\ndef create_app():\n    return Flask(__name__)\n"
    command = "import sys\nfrom shop import create_app\napp = create_app()\n"
    write(tmp_path, {"shop.py": factory, "load.py": command + HAZARD + "print(sys.argv[1])\n"})
    assert examine([tmp_path])[0] == []

    write(tmp_path, {"load.py": command + HAZARD})
    assert [finding.rule for finding in examine([tmp_path])[0]] == ["N401"]


@pytest.mark.parametrize(
    ("statement", "use"),
    [
        ("from .store import session", "session"),
        ("from .store import session as s", "s"),
        ("from . import store", "store.session"),
        ("from .store import *", "session"),
        ("import shop.store", "shop.store.session"),
        ("import shop.store as st", "st.session"),
        ("from shop import session", "session"),
    ],
)
def test_names_are_followed_across_files(statement: str, use: str, tmp_path: Path) -> None:
    """A session of another module is found where a view uses it, however it is imported."""
    session = "from sqlalchemy.orm import Session\nsession = Session()  # expect: N103\n"
    view = f"{statement}\n{SERVES}\n@app.get('/')\ndef index():\n    {use}.flush()\n"
    package = {"__init__.py": "from .store import session\n", "store.py": session, "app.py": view}
    write(tmp_path, {f"src/shop/{name}": text for name, text in package.items()})

    findings, _ = examine([tmp_path])

    assert found(findings) == expected(session)
    assert findings[0].place.path.endswith("store.py")
    assert findings[0].uses[0].place.path.endswith("app.py")


def test_circles_end(tmp_path: Path) -> None:
    """Circular imports and self-referential names do not stop the analysis."""
    files = {
        "a.py": "from b import x\nfrom a import y\nx = x\ny = lambda: y()\nz = z()\nclass A(A): b = 1\n",
        "b.py": "from a import x\nfrom b import *\ndef f(): return f()\nf()\n" + SERVES,
    }
    write(tmp_path, files)

    assert examine([tmp_path])[0] == []


def test_deep_code_is_read_or_reported(tmp_path: Path) -> None:
    """An expression too deep for Python's parser or the walk causes a remark, not a traceback."""
    deep = {"sum.py": "x = " + " + ".join(["1"] * 3000), "call.py": "x = " + "f(" * 150 + ")" * 150}
    write(tmp_path, deep | {"null.py": "a\0b", "app.py": SERVES + HAZARD})
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    (tmp_path / "bad.py").write_bytes(b"x = '\xe9'\n")

    findings, files = examine([tmp_path])

    assert files == 6
    names = {(finding.place.path.rpartition("/")[2], finding.rule) for finding in findings}
    unparsed = {("null.py", "X901"), ("bad.py", "X901")}
    assert {("app.py", "N401"), *unparsed} <= names
    assert names <= {("app.py", "N401"), *unparsed, ("sum.py", "X901"), ("call.py", "X901")}
