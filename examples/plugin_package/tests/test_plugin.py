"""A plugin's own tests: its method is judged, its check tells a sound method from a control."""

import saliency_checks as sc


def test_everything_is_found_by_name():
    assert "positive_contributions" in sc.names("methods")
    assert "stripes" in sc.names("subjects")
    assert "top_pixel" in sc.names("checks")


@sc.parametrize_with_checks(["positive_contributions"], subjects=["stripes"])
def test_the_method(case):
    case.require()


def test_the_check_fails_what_never_looks_at_the_model():
    assert sc.run("top_pixel", "gradient", "stripes").verdict == "pass"
    assert sc.run("top_pixel", "random", "stripes").verdict == "fail"
