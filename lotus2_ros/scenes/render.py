"""From a world and a camera to an image with exact depth and normals: rays against triangles, then simple light."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import open3d as o3d
import torch
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scenes import textures
from lotus2_ros.scenes.assets import Assets
from lotus2_ros.scenes.hits import Hit, raycasting, uv_of
from lotus2_ros.scenes.photo import photograph
from lotus2_ros.scenes.world import Light, Pose, World

OCCLUSION_RAYS = 4
# What varies slowly, darkness in corners, is found on a grid of about this many pixels.
SMOOTH_SIDE = 80


@dataclass(frozen=True)
class View:
    """What one camera sees.

    image (H, W, 3) uint8 RGB; depth (H, W) float32, meters along z, +Inf in the sky; normals (H, W, 3) float32, unit,
    in the optical frame, toward the camera, NaN in the sky; pose: where the camera stands in its world, the floor at
    z = 0; stamp_s: seconds since the start of its sequence.
    """

    image: Tensor
    depth: Tensor
    normals: Tensor
    camera: Camera
    pose: Pose
    stamp_s: float = 0.0

    @property
    def sky(self) -> Tensor:
        """(H, W) bool."""
        return torch.isposinf(self.depth)


class Renderer:
    """A world made ready for rays; `assets` that it was built with."""

    def __init__(self, world: World, assets: Assets | None = None) -> None:
        self.world, self.assets = world, assets
        # Glass last: without it, for light and for what is seen through it or in a mirror, the triangles' numbers hold.
        parts = sorted(world.parts, key=lambda part: part.surface.clear > 0)
        solid = [part for part in parts if part.surface.clear == 0]
        self.solid = raycasting(solid)
        self.scene = self.solid if len(solid) == len(parts) else raycasting(parts)
        counts = torch.tensor([len(part.triangles) for part in parts])
        self.part_of = torch.repeat_interleave(torch.arange(len(parts)), counts)
        sizes = [float(np.linalg.norm(np.ptp(part.vertices, axis=0))) for part in parts]
        self.is_thing = torch.tensor([0.05 < size / world.size_of_things < 1.2 for size in sizes])
        surfaces = [part.surface for part in parts]
        self.rotation = _stack(part.rotation for part in parts)
        self.origin = _stack(part.origin for part in parts)
        self.pattern = torch.tensor([surface.pattern for surface in surfaces])
        self.photo = torch.tensor([surface.photo for surface in surfaces])
        self.uv = uv_of(parts) if assets else None
        self.tile, self.gloss, self.glow, self.mirror, self.clear = (
            torch.tensor([getattr(surface, name) for surface in surfaces], dtype=torch.float32)
            for name in ("tile", "gloss", "glow", "mirror", "clear")
        )
        self.colors = _stack(surface.colors for surface in surfaces)

    def glance(self, pose: Pose, camera: Camera) -> tuple[Tensor, Tensor]:
        """Depth (H, W) and which part is seen (H, W), -1 for the sky, without light."""
        rays = camera.rays @ torch.from_numpy(pose.rotation()).float().T
        hit = self._cast(self.scene, torch.from_numpy(pose.position).float().expand_as(rays), rays)
        return hit.distance, hit.part

    def view(self, pose: Pose, camera: Camera, seed: int, stamp_s: float = 0.0) -> View:
        """The whole view; `seed` is the camera's: exposure, white balance, blur, noise."""
        to_world = torch.from_numpy(pose.rotation()).float()
        eye = torch.from_numpy(pose.position).float()
        rays = camera.rays @ to_world.T
        # The rays have z = 1 in the optical frame, so the distance along them is the depth.
        hit = self._cast(self.scene, eye.expand_as(rays), rays)
        depth, seen = hit.distance, hit.part >= 0
        pixel = 1 / float(camera.K[0, 0])
        radiance = self._sky(rays)
        points, directions = eye + depth[seen, None] * rays[seen], F.normalize(rays[seen], dim=-1)
        openness = self._openness(depth, rays, hit.normals, eye)[seen]
        light = self._shade(points, directions, hit[seen], depth[seen] * pixel, openness)
        self._add_seen_through(light, points, directions, hit[seen], pixel)
        air = torch.exp(-self.world.haze * depth[seen])[:, None]
        radiance[seen] = light * air + radiance.mean() * (1 - air)
        normals = torch.where(seen[..., None], hit.normals @ to_world, torch.nan)
        image = photograph(radiance, depth, np.random.default_rng([seed, 2]))
        return View(image, depth, normals, camera, pose, stamp_s)

    def _add_seen_through(self, light: Tensor, points: Tensor, rays: Tensor, hit: Hit, pixel: float) -> None:
        """Add to `light` (N, 3), in place, the light through glass and from mirrors."""
        part, far = hit.part, hit.distance
        facing = -(rays * hit.normals).sum(-1, keepdim=True)
        reflected = rays + 2 * facing * hit.normals
        mirror = self.mirror[part]
        schlick = mirror + (1 - mirror) * (1 - facing[:, 0]).clamp(0, 1) ** 5
        for share, on, directions in (
            (self.clear[part], self.clear[part] > 0, rays),
            (schlick, mirror > 0, reflected),
        ):
            if bool(on.any()):
                beyond = self._beyond(points[on] + 2e-3 * directions[on], directions[on], far[on], pixel)
                light[on] = torch.lerp(light[on], beyond, share[on, None])

    def _beyond(self, origins: Tensor, rays: Tensor, far: Tensor, pixel: float) -> Tensor:
        """Radiance (N, 3) that comes along `rays`, of unit length, after `far` meters already."""
        hit = self._cast(self.solid, origins, rays)
        radiance, seen = self._sky(rays), hit.part >= 0
        points, footprint = origins[seen] + hit.distance[seen, None] * rays[seen], (far + hit.distance)[seen] * pixel
        radiance[seen] = self._shade(points, rays[seen], hit[seen], footprint, torch.ones(len(points)))
        return radiance

    def _cast(self, scene: o3d.t.geometry.RaycastingScene, origins: Tensor, directions: Tensor) -> Hit:
        rays = torch.cat((origins, directions), dim=-1).contiguous()
        hit = scene.cast_rays(o3d.core.Tensor(rays.numpy()))
        distance = torch.from_numpy(hit["t_hit"].numpy())
        triangle = torch.from_numpy(hit["primitive_ids"].numpy().astype(np.int64))
        seen = torch.isfinite(distance)
        part = torch.where(seen, self.part_of[torch.where(seen, triangle, 0)], -1)
        normals = F.normalize(torch.from_numpy(hit["primitive_normals"].numpy()), dim=-1)
        away = (normals * directions).sum(-1, keepdim=True) > 0
        uv = torch.full((*distance.shape, 2), torch.nan)
        if self.uv is not None:
            along = torch.from_numpy(hit["primitive_uvs"].numpy())  # of the second and the third corner
            shares = torch.cat((1 - along.sum(-1, keepdim=True), along), dim=-1)[..., None]
            uv[seen] = (shares[seen] * self.uv[triangle[seen]]).sum(-2)
        return Hit(distance, part, torch.where(away, -normals, normals), uv)

    def _blocked(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Whether anything lies between `origins` and `origins + directions`."""
        rays = torch.cat((origins, directions), dim=-1).contiguous()
        return torch.from_numpy(self.solid.test_occlusions(o3d.core.Tensor(rays.numpy()), 1e-3, 0.999).numpy())

    def _openness(self, depth: Tensor, rays: Tensor, normals: Tensor, eye: Tensor) -> Tensor:
        """(H, W) in [0, 1]: the share of short rays into the open, which is small in corners (ambient occlusion)."""
        stride = max(1, max(depth.shape) // SMOOTH_SIDE)
        depth_, rays_, normals_ = (t[::stride, ::stride] for t in (depth, rays, normals))
        seen = torch.isfinite(depth_)
        up = normals_[seen]
        origins = eye + (depth_[seen, None] * rays_[seen]) + 2e-3 * up
        reach = 0.6 if self.world.sky is None else 2.0
        generator = torch.Generator().manual_seed(0)
        open_ = torch.zeros(len(up))
        for _ in range(OCCLUSION_RAYS):
            directions = F.normalize(
                up + F.normalize(torch.randn(up.shape, generator=generator), dim=-1) * 0.99, dim=-1
            )
            open_ += (~self._blocked(origins, directions * reach)).float() / OCCLUSION_RAYS
        image = torch.ones(1, 1, *depth_.shape)
        image[0, 0, seen] = open_
        smooth = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return F.interpolate(smooth, depth.shape, mode="bilinear", align_corners=False)[0, 0]

    def _shade(self, points: Tensor, rays: Tensor, hit: Hit, footprint: Tensor, openness: Tensor) -> Tensor:
        """Linear radiance (N, 3): ambient light, then Lambert and Blinn-Phong for every light that is not in shadow."""
        normals, part = hit.normals, hit.part
        albedo = self._albedo(points, hit, footprint / (-(rays * normals).sum(-1)).clamp_min(0.15))
        overhead = 0.75 + 0.25 * normals[:, 2:]
        ambient = torch.from_numpy(self.world.ambient).float()
        radiance = albedo * ambient * overhead * openness[:, None] + albedo * self.glow[part, None]
        for light in self.world.lights:
            radiance += self._lit(light, points, normals, rays, albedo, self.gloss[part])
        return radiance

    def _lit(
        self, light: Light, points: Tensor, normals: Tensor, rays: Tensor, albedo: Tensor, gloss: Tensor
    ) -> Tensor:
        toward = torch.from_numpy(light.position).float() - points
        distance = toward.norm(dim=-1, keepdim=True)
        direction = toward / distance
        facing = (direction * normals).sum(-1)
        lit = facing > 0
        lit[lit.clone()] = ~self._blocked((points + 2e-3 * normals)[lit], toward[lit])
        reflected = albedo * facing[:, None]
        shiny = lit & (gloss > 0)
        half = F.normalize(direction[shiny] - rays[shiny], dim=-1)
        reflected[shiny] += 0.5 * (gloss[shiny] * (half * normals[shiny]).sum(-1).clamp_min(0) ** 40)[:, None]
        strength = torch.where(lit, 2.0, 0.0)[:, None] / (1 + (distance / light.reach) ** 2)
        return strength * torch.from_numpy(light.color).float() * reflected

    def _albedo(self, points: Tensor, hit: Hit, footprint: Tensor) -> Tensor:
        """The surface's pattern or photograph, projected along the axis of the part's frame that it faces most, or by
        uv of its own."""
        normals, part = hit.normals, hit.part
        rotation = self.rotation[part]
        local = torch.einsum("ni,nij->nj", points - self.origin[part], rotation)
        facing = torch.einsum("ni,nij->nj", normals, rotation).abs().argmax(-1)
        u = torch.where(facing == 0, local[:, 1], local[:, 0])
        v = torch.where(facing == 2, local[:, 1], -local[:, 2])
        tile = self.tile[part]
        # A part's number moves its pattern, or equal things would look equal.
        uv = torch.stack((u, v), dim=-1) / tile[:, None] + torch.frac(part[:, None] * torch.tensor([0.618, 0.414]))
        mix = textures.sample(self.pattern[part], uv, footprint / tile)
        stain = textures.sample(torch.full_like(part, textures.family("noise")[0]), uv * 0.13, footprint / tile * 0.13)
        low, middle, high = self.colors[part].unbind(1)
        along = 2 * mix[:, None]
        color = torch.where(along < 1, torch.lerp(low, middle, along), torch.lerp(middle, high, along - 1))
        photographed = self.photo[part] >= 0
        if self.assets is not None and bool(photographed.any()):
            where = torch.where(hit.uv.isnan(), uv, hit.uv)[photographed]
            photo, low_pass = self.photo[part][photographed], (footprint / tile)[photographed]
            color[photographed] = self.assets.sample(photo, where, low_pass)
        return color * (0.8 + 0.3 * stain[:, None])

    def _sky(self, rays: Tensor) -> Tensor:
        """Radiance (..., 3) where nothing is hit: paler toward the horizon, with clouds. Black indoors."""
        if self.world.sky is None:
            return torch.zeros_like(rays)
        color = torch.from_numpy(self.world.sky).float()
        up = F.normalize(rays, dim=-1)[..., 2].clamp_min(0)
        haze = torch.exp(-6 * up)[..., None]
        plane = (rays[..., :2] / (rays[..., 2:].clamp_min(0) + 0.15)).reshape(-1, 2) * 0.05
        pattern = torch.full((len(plane),), textures.family("noise")[1])
        clouds = textures.sample(pattern, plane, torch.full((len(plane),), 2e-3)).reshape(*up.shape, 1)
        return torch.lerp(
            torch.lerp(color, color.mean() * 1.3 + 0 * color, haze * 0.7), torch.tensor(1.1), 0.5 * clouds**2
        )


def _stack(arrays: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(arrays))).float()
