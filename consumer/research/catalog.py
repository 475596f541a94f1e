"""What the simulated shops sell, and the devices people buy it with: brands, prices and shares are invented.

Outer order: `ONE_HOT["product_category"]`.
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
# invented: mostly fashion and beauty, as pay-in-four began; dearer goods are rarer and spread wider
CATEGORY_SHARES = (0.17, 0.37, 0.19, 0.15, 0.12)
MEDIAN_PRICE = np.array([48.0, 72.0, 240.0, 135.0, 88.0])
"""Dollars, by category."""
PRICE_SPREAD = np.array([0.45, 0.5, 0.75, 0.7, 0.55])
"""Standard deviation of the price's logarithm, by category."""
PRODUCT_RISK_SHARES = np.array(
    [[0.6, 0.3, 0.1], [0.55, 0.35, 0.1], [0.2, 0.4, 0.4], [0.45, 0.4, 0.15], [0.5, 0.4, 0.1]]
)
"""Low, medium, high: by category, for what sells again easily is bought with stolen identities more often."""
DEVICE_TYPES = ("desktop", "mobile", "tablet")
DEVICE_SYSTEMS = (("Windows", "macOS", "Linux"), ("Android", "iOS"), ("iOS", "Android"))
"""By device type."""
