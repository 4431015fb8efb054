"""What a place that cannot be written to says, and the command that mends it."""

import pytest

from pipeline.health.places import check_places


@pytest.mark.parametrize(
    ("root", "said", "mend"),
    [
        ("s3://b/stores", "The specified bucket does not exist", "aws s3 mb s3://b"),
        ("s3://b/stores", "Unable to locate credentials", "aws configure"),
        ("s3://b/stores", "The provided token has expired.", "aws configure"),
        ("s3://b/stores", "Install s3fs to access S3", "pip install s3fs"),
        ("s3://b/stores", "Access Denied", "export QFACTORY_STORES=URI"),
        ("/stores", "Read-only file system", "export QFACTORY_STORES=URI"),
        ("/my stores", "Permission denied", "sudo chown -R \"$USER\" '/my stores'"),
        ("/stores", "the disk is full", "du -xh /stores"),
    ],
)
def test_each_reason_has_a_command(root, said, mend):
    (check,) = check_places({"stores": root}, {"stores": f"cannot be written: {said}"})
    (problem,) = check.problems
    assert said in problem.what
    assert problem.mend.startswith(mend)


def test_a_password_in_an_address_is_not_shown():
    (check,) = check_places({"stores": "s3://me:secret@b/stores"}, {"stores": "is away"})
    assert "secret" not in str(check)
