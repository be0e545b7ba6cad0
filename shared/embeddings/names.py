"""Names of backbones, apart from what loads them, so that a form can look at them without loading torch."""

from collections.abc import Mapping
from types import MappingProxyType

# Names as the original releases have them.
SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "dino_vits8": "vit_small_patch8_224.dino",
        "dino_vits16": "vit_small_patch16_224.dino",
        "dino_vitb8": "vit_base_patch8_224.dino",
        "dino_vitb16": "vit_base_patch16_224.dino",
        "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
        "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
        "dinov2_vitl14": "vit_large_patch14_dinov2.lvd142m",
        "dinov2_vitg14": "vit_giant_patch14_dinov2.lvd142m",
        "dinov2_vits14_reg": "vit_small_patch14_reg4_dinov2.lvd142m",
        "dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2.lvd142m",
        "dinov2_vitl14_reg": "vit_large_patch14_reg4_dinov2.lvd142m",
        "dinov2_vitg14_reg": "vit_giant_patch14_reg4_dinov2.lvd142m",
        "dinov3_vits16": "vit_small_patch16_dinov3.lvd1689m",
        "dinov3_vits16plus": "vit_small_plus_patch16_dinov3.lvd1689m",
        "dinov3_vitb16": "vit_base_patch16_dinov3.lvd1689m",
        "dinov3_vitl16": "vit_large_patch16_dinov3.lvd1689m",
        "dinov3_vith16plus": "vit_huge_plus_patch16_dinov3.lvd1689m",
        "dinov3_convnext_tiny": "convnext_tiny.dinov3_lvd1689m",
        "dinov3_convnext_small": "convnext_small.dinov3_lvd1689m",
        "dinov3_convnext_base": "convnext_base.dinov3_lvd1689m",
        "dinov3_convnext_large": "convnext_large.dinov3_lvd1689m",
    }
)
