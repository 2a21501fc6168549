"""Enrolment: how a gateway's host gets the certificate by which relays know it, keeps it and loses it."""
