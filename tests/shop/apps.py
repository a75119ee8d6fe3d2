from django.apps import AppConfig


class ShopConfig(AppConfig):
    """A project's own app: the models and templates that other packages' examples speak of. No migrations."""

    name = "tests.shop"
    label = "tests_shop"
    default_auto_field = "django.db.models.BigAutoField"
