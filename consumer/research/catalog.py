"""What the simulated shops sell, and the devices people buy it with. Outer order:
`ONE_HOT["product_category"]`.
"""

from __future__ import annotations

import numpy as np

SUBCATEGORIES = (
    ("skincare", "makeup", "fragrance"),
    ("shoes", "dresses", "outerwear"),
    ("smartphones", "laptops", "audio"),
    ("furniture", "kitchen", "lighting"),
    ("fitness", "team_sports", "outdoor"),
)
BRANDS = (
    ("Lumière", "Verdant", "Clove & Co"),
    ("Norththread", "Atelier Six", "Kestrel"),
    ("Voltaic", "Ohmline", "Perihelion"),
    ("Hearthside", "Plainwood", "Lanternfish"),
    ("Ridgeback", "Tempo", "Paddock"),
)
MEDIAN_PRICE = np.array([55.0, 85.0, 190.0, 150.0, 95.0])
"""Dollars, by category."""
DEVICE_TYPES = ("desktop", "mobile", "tablet")
DEVICE_SYSTEMS = (("Windows", "macOS", "Linux"), ("Android", "iOS"), ("iOS", "Android"))
"""By device type."""
