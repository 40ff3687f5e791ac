from lotus2_ros.ros.diagnostics import scale_values
from lotus2_ros.scale.scale import Scale


def test_diagnostics_say_where_metres_come_from_and_what_is_amiss():
    fitted = Scale(0.5, 0.1, "reference_points", True, age=0.4321)
    assert scale_values(fitted) == {"scale source": "reference_points", "scale age (s)": "0.43"}
    relative = Scale(0.5, 0.1, "normals", False, note="the last fit is old")
    assert scale_values(relative) == {"scale source": "normals", "scale note": "the last fit is old"}
