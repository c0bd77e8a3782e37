"""Every section that all experiments share, every value named. An experiment's config changes what it needs.

`python -m experiments.train --config=... --dry_run` prints the resolved result. 0 and "" stand for "off" or "none".
"""

from ml_collections import ConfigDict


def base() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # of the run: parameters, batches, noise
    c.profile = False  # write a jax.profiler trace of steps 10 to 20 into the workdir
    c.init_from = ""  # workdir whose parameters this run starts from, wherever path and shape agree
    c.fixed_from = ""  # workdir whose parameters this run keeps fixed, wherever paths agree
    c.model = ConfigDict()  # kind, event, and the keyword arguments of its maker in vaeflow/models
    c.parts = ConfigDict()  # name: kind and keyword arguments; vaeflow/bijectors and vaeflow/nets
    c.data = ConfigDict(
        dict(
            kind="digits",  # digits, density, tfds, npz, image_folder, csv, maf, omniglot, pair
            name="",  # density, maf: which one; tfds: the dataset; npz: the array with the examples
            dir="",  # tfds: data_dir
            path="",  # npz, csv, omniglot: the file; image_folder, maf: the folder
            label="",  # csv: the label's column; npz: the array with the labels
            train="",  # tfds: split expressions such as train[:50000]; npz: an array, or rows of one such as x[:90%]
            val="",
            test="",
            val_fraction=0.1,  # npz, image_folder, csv without splits of their own; omniglot
            test_fraction=0.1,
            size=0,  # density: training examples
            levels=0,  # npz: integers are grey values 0 .. levels - 1; 0: 256, or 2 when none is above 1
            context="none",  # none, label (one-hot), array (of an npz): what the model is conditioned on
            binarize="none",  # none, threshold, static, dynamic
            augment=(),  # flip, crop: of training images, in every step
            batch=128,  # of all devices together
            place="auto",  # auto, device (resident, one dispatch for many steps), stream (grain)
            workers=2,  # stream: reading threads
            prefetch=16,  # stream: batches ahead
            cache_dir="",  # tfds: where decoded sets are kept; "": the user's cache folder
            x=ConfigDict(),  # pair: the source of x, as values that differ from this section: dict(kind="density", name="moons")
            x0=ConfigDict(),  # pair: the source of x0
            pairing="rows",  # of data with x0: rows (true pairs), shuffle (independent: paired anew at random in every epoch)
        )
    )
    c.optim = ConfigDict(
        dict(
            name="adam",  # adam, adamw, adamax, nadam, radam, lamb, lion, rmsprop, sgd
            learning_rate=1e-3,
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            weight_decay=0.0,
            decay_on="all",  # all, kernels (the networks' matrices alone)
            clip=0.0,  # global gradient norm; 0: off
            schedule="constant",  # constant, cosine, step, exponential, stages
            warmup=0,  # steps
            decay_every=1000,  # steps; step, exponential, stages (of the first one)
            decay_rate=0.5,
            final_fraction=0.0,  # cosine
            ema=0.999,  # 0: off
            groups={},  # name: other values of the above for the parameters of that name; see vaeflow/training/parameter_groups.py
            turns=(),  # NAME:STEPS, in the order of a cycle, such as critic:5, generator:1; empty: all parameters in every step
        )
    )
    c.train = ConfigDict(
        dict(
            steps=1000,
            log_every=50,  # steps a row of metrics.jsonl is the mean of
            eval_every=500,  # steps between evaluations of the whole validation split
            checkpoint_every=500,
            patience=0,  # evaluations without improvement before stopping; 0: off
            accumulate=1,  # parts that a device's batch is cut into, whose gradients are averaged: memory
            dispatch_seconds=0.5,  # what one dispatch of many steps lasts
            max_dispatch=1024,  # steps in a dispatch at the most
        )
    )
    c.eval = ConfigDict(
        dict(
            params="auto",  # auto (best where there is one), best, last
            batch=200,
            k=100,  # draws of IWAE-k
            chunk=10,  # draws at a time: memory
            measures=(),  # names of measures (experiments.diagnose --list); (): the likelihood, the ELBO's terms, ... where they apply
            settings=ConfigDict(),  # of measures, where they differ from the defaults: dict(ais=dict(chains=32))
            examples=0,  # of the split, in a fixed shuffled order; 0: all
            select="loss",  # criterion for `best` on the validation split: loss, or "measure.finding"
            validate=ConfigDict(),  # settings of that measure during training, where they differ from the final ones
        )
    )
    c.sample = ConfigDict(dict(n=64, temperature=1.0))
    c.devices = ConfigDict(dict(mapping="auto"))  # auto, jit, pmap, shard_map, fsdp
    return c


def vae(event: tuple[int, ...], levels: int, latent: int, **changes) -> ConfigDict:
    """The model section of a VAE: every key of vaeflow/models/vae.py."""
    c = dict(
        kind="vae",
        event=event,  # shape of one example
        levels=levels,  # grey values; 2: binary (or binarized); 0: continuous
        latent=latent,
        encoder="encoder",  # names of parts
        decoder="decoder",
        std="softplus",  # of the posterior: log_variance, softplus, bounded
        std_bound=10.0,
        posterior="",  # a layer over the Gaussian posterior
        posterior_context=0,  # features that the encoder gives this layer
        prior="",  # a layer over the prior's base
        prior_base="",  # "": N(0, I); or the name of a part: gaussian_mixture, context_normal, ...
        pseudo_inputs=0,  # of the VampPrior in its place
        likelihood="bernoulli",  # bernoulli, bernoulli_intensities, gaussian, gaussian_learned, discretized_logistic
        likelihood_std=0.1,  # gaussian
        autoregressive="",  # a masked network over the pixels beside the decoder
        objective="elbo",  # elbo, elbo_path, iwae, iwae_one, iwae_path, dreg, renyi
        alpha=0.0,  # renyi
        kl="auto",  # auto: analytic where it exists; monte_carlo
        samples=1,  # draws of z per example
        beta=1.0,
        beta_schedule="constant",  # constant, linear, cyclical
        beta_start=0.0,
        beta_steps=0,
        beta_ramp=0.5,
        free_bits=0.0,  # nats per latent dimension
        capacity=0.0,  # nats at which the KL is held, reached after capacity_steps
        capacity_steps=0,
        tc=0.0,  # weight of the aggregate posterior's total correlation
        mmd=0.0,  # weight of its squared MMD to the prior
        adversarial=0.0,  # weight of fooling `critic`, a network that tells its draws from the prior's
        critic="",
    )
    return ConfigDict(c | changes)


def flow(event: tuple[int, ...], levels: int = 0, **changes) -> ConfigDict:
    """The model section of a flow: every key of vaeflow/models/flow.py."""
    c = dict(
        kind="flow",
        event=event,
        levels=levels,
        layer="flow",
        base="normal",  # normal, logistic, or the name of a part: student_t, uniform, gaussian_mixture, context_normal
        dequantize="uniform" if levels else "none",  # variational: y = x + sigmoid(v), v from the layer `dequantizer`
        dequantizer="",
        flatten=len(event) > 1,
    )
    return ConfigDict(c | changes)


def classifier(event: tuple[int, ...], levels: int, classes: int, **changes) -> ConfigDict:
    """The model section of a classifier: every key of vaeflow/models/classifier.py."""
    c = dict(
        kind="classifier",
        event=event,
        levels=levels,
        classes=classes,
        features=64,  # of the layer below the logits
        net="net",
        smoothing=0.0,  # of the labels
    )
    return ConfigDict(c | changes)


def mlp(*hidden: int, activation: str = "relu") -> dict:
    """A part: a fully connected network."""
    return dict(kind="mlp", hidden=hidden, activation=activation, dtype="float32")


def made(*hidden: int, order: str = "natural", activation: str = "relu") -> dict:
    """A part: the masked network of an autoregressive layer, inverted one input after the other."""
    return dict(kind="made", hidden=hidden, activation=activation, order=order, inversion="incremental", tolerance=0.0, dtype="float32")


def repeat(of: str, n: int, memory: str = "store") -> dict:
    """A part: n copies of a layer; memory of training: store every activation, remat (recompute those of a layer), invert."""
    return dict(kind="repeat", of=of, n=n, memory=memory)


def affine(net: str, mask: str, flip: bool) -> dict:
    """A part: RealNVP's coupling, log-scales within (-2, 2)."""
    return dict(kind="affine_coupling", net=net, mask=mask, flip=flip, cap=2.0)


def spline(net: str, mask: str, flip: bool, bins: int = 8, bound: float = 4.0) -> dict:
    """A part: a rational-quadratic spline coupling, the identity outside [-bound, bound]."""
    return dict(
        kind="spline_coupling", net=net, mask=mask, flip=flip, bins=bins, bound=bound, min_width=1e-3, min_height=1e-3, min_slope=1e-3
    )


def mintnet(copies: int, flip: bool) -> dict:
    """A part: MintNet's layer of 3x3 masked convolutions, `copies` hidden channels for each of the image's."""
    return dict(kind="mintnet", copies=copies, kernel=3, flip=flip, cap=2.0, tolerance=1e-6)


def mixture(net: str, mask: str, flip: bool, components: int = 8) -> dict:
    """A part: Flow++'s coupling, a mixture of logistics and an affine map, log-scales within (-3, 3)."""
    return dict(kind="mixture_coupling", net=net, mask=mask, flip=flip, components=components, cap=3.0)
