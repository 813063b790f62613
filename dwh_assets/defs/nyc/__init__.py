"""Flights out of New York City in 2013, with weather, planes, airports and airlines."""
