"""Commands of runbooks that no lab can show, each with the test that types it instead."""

