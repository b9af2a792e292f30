"""Progress passes the text on, and says nothing where nobody watches."""

from formers.data.progress import watched


def test_documents_pass_unchanged_and_one_at_a_time(capsys):
    taken = []

    def source():
        for text in ("one", "two", "three"):
            taken.append(text)
            yield text

    passing = watched(source(), "reading")
    assert next(passing) == "one"
    assert taken == ["one"]
    assert list(passing) == ["two", "three"]
    assert capsys.readouterr().err.strip() == ""
