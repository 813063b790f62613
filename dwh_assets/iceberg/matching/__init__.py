"""Which live rows do source rows hit, and where do they lie?"""
