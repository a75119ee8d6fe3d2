from django.db import models


class User(models.Model):
    """Not Django's: an app without migrations may not refer to one that has some."""

    email = models.EmailField()
    first_name = models.CharField(max_length=100)
    last_name = models.CharField(max_length=100)
    is_active = models.BooleanField(default=True)
    newsletter_subscribed = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.get_full_name()

    def get_full_name(self) -> str:
        return f"{self.first_name} {self.last_name}"


class Order(models.Model):
    user = models.ForeignKey(User, models.CASCADE, related_name="orders")

    def __str__(self) -> str:
        return f"order {self.pk}"


class Item(models.Model):
    order = models.ForeignKey(Order, models.CASCADE, related_name="items")
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2)

    def __str__(self) -> str:
        return self.name


class Invoice(models.Model):
    number = models.CharField(max_length=20)
    customer = models.ForeignKey(User, models.CASCADE, related_name="invoices")
    due_date = models.DateField()

    def __str__(self) -> str:
        return self.number


class Article(models.Model):
    title = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.title
