"""Catga beside other clients, on the same servers, in the same run."""
