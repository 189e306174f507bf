"""The checks among one's own tests: one test for each check and subject that the method can be judged on."""

import attribution

import saliency_checks as sc


@sc.parametrize_with_checks([attribution.smooth_ig], subjects=["planted_pixel_a", "fashion_cnn"])
def test_faithful(case):
    case.require()
