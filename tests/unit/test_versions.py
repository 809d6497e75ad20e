"""Which code a run was made by: the digest of the package's sources in versions.json."""

import json

from mifo_verl.run.versions import SOURCES, record_versions, sources_sha256


def package(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return sources_sha256(folder)


def test_the_digest_is_of_the_names_and_the_bytes_of_python_files_alone(tmp_path):
    files = {"a.py": "1", "sub/b.py": "2"}
    digest = package(tmp_path / "one", files)
    assert package(tmp_path / "two", {**dict(reversed(files.items())), "page.css": "x"}) == digest
    others = [
        {"a.py": "1", "sub/b.py": "3"},
        {"a.py": "2", "sub/b.py": "1"},
        {"a.py": "1", "sub/c.py": "2"},
        {"a.py": "1", "b.py": "2"},
        {"a.py": "1"},
    ]
    digests = {package(tmp_path / f"other{place}", other) for place, other in enumerate(others)}
    assert len(digests | {digest}) == 6


def test_a_run_that_goes_on_with_other_code_has_both_digests_and_one_that_starts_anew_its_own(tmp_path):
    def recorded() -> str:
        record_versions(tmp_path)
        return json.loads((tmp_path / "versions.json").read_text())[SOURCES]

    now = recorded()
    assert len(now) == 64 and recorded() == now
    (tmp_path / "versions.json").write_text(json.dumps({SOURCES: "old"}))
    assert recorded() == now  # no step was made by it
    (tmp_path / "versions.json").write_text(json.dumps({SOURCES: "old"}))
    (tmp_path / "metrics.jsonl").touch()
    assert recorded() == f"old, {now}" and recorded() == f"old, {now}"
