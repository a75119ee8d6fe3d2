from django import forms

from shop import services
from shop.models import Customer


class SignUpForm(forms.ModelForm):
    password = forms.CharField(widget=forms.PasswordInput)

    class Meta:
        model = Customer
        fields = ["first_name", "email"]

    def save(self) -> Customer:
        data = self.cleaned_data
        return services.sign_up(data["first_name"], data["email"], data["password"])
