from django.shortcuts import redirect
from django.views.generic import FormView

from shop.forms import SignUpForm


class SignUpView(FormView):
    form_class = SignUpForm
    template_name = "shop/sign_up.html"

    def form_valid(self, form):
        form.save()
        return redirect("login")
