# ruff: noqa: E501 the mails are as they are
"""Thirty HTML mails, each with something that a careless change would break. Written for these tests."""

_BUTTON = """<!--[if mso]><v:roundrect xmlns:v="urn:schemas-microsoft-com:vml" href="https://shop.example/pay?a=1&amp;b=2"
 style="height:40px;width:200px" arcsize="10%" fillcolor="#1a73e8"><center style="color:#fff">Pay</center></v:roundrect>
<![endif]--><!--[if !mso]><!-- --><a href="https://shop.example/pay?a=1&amp;b=2" style="display:inline-block;
background:#1a73e8;color:#fff;padding:10px 24px;text-decoration:none">Pay</a><!--<![endif]-->"""

CORPUS = {
    "one paragraph": "<p>Hello <a href='https://shop.example/'>Ada</a>.</p>",
    "no markup but a link": "Your code is 1234. See <a href=https://shop.example/code>why</a>",
    "a whole document": """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Hi &amp; bye</title></head>
<body bgcolor="#f0f0f0"><h1>Hello</h1><p>Read <a href="https://shop.example/a">this</a>.</p></body></html>""",
    "xhtml": """<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">
<html xmlns="http://www.w3.org/1999/xhtml"><body><p>One<br />two <a href="https://shop.example/x" >x</a><hr /></p></body></html>
""",
    "layout tables": """<table width="600" cellpadding="0" cellspacing="0" role="presentation" align="center"><tr><td
 style="padding:20px;background:#eee"><table width="100%"><tr><td width="50%">Left <a href="https://shop.example/l">l</a></td>
<td width="50%" align="right">Right</td></tr></table></td></tr></table>""",
    "a button for outlook": f"<table><tr><td>{_BUTTON}</td></tr></table>",
    "ghost columns": """<!--[if (gte mso 9)|(IE)]><table><tr><td width="300"><![endif]--><div style="display:inline-block;
width:300px;background:#cde">A <a href="https://shop.example/1">1</a></div><!--[if (gte mso 9)|(IE)]></td><td width="300">
<![endif]--><div style="display:inline-block;width:300px;background:#edc">B</div><!--[if mso]></td></tr></table><![endif]-->""",
    "a revealed conditional": """<![if !mso]><p>Not in Outlook: <a href="https://shop.example/web">web</a></p><![endif]>""",
    "entities": """<p>&copy;&nbsp;2026 &mdash; &euro;5 &lt;b&gt; &#169; &#x263A; &amp;amp; AT&T &unknown; <a
 href="https://shop.example/?q=a&copy=b&lt=c&amp;d=%C3%A9">caf&eacute;</a></p>""",
    "quotes inside quotes": """<p title='He said "hi" > now'>T <a href='https://shop.example/?q="x"' title="a > b">q</a></p>""",
    "upper case": '<TABLE BORDER=1><TR><TD>A<TD><A HREF="HTTPS://shop.example/UP">UP</A></TABLE>',
    "unclosed elements": """<ul><li>One <a href="https://shop.example/1">1<li>Two<li>Three</ul><p>A<p>B<div>C""",
    "styles in the head": """<html><head><style>a { color: #c00 } a:hover { color: #0c0 } p > a { font-weight: bold }
@media (max-width: 480px) { .c { width: 100% !important } } img { display: block; width: 100% !important; height: auto }
</style></head><body><div class="c" style="width:300px"><p><a href="https://shop.example/">bold red</a></p></div></body></html>""",
    "a style with tags in it": """<style>/* <a href="https://no.example/"> */ p::before { content: "<b>" }</style><p>x</p>
<a href="https://shop.example/">y</a>""",
    "a form": """<form action="https://shop.example/vote" method="post"><label><input type="radio" name="v" checked> Yes</label>
<select><option>One<option selected>Two</select><textarea rows="2"><a href="https://no.example/"></textarea>
<input type="submit" value="Vote"></form><p><a href="https://shop.example/vote">Vote there</a></p>""",
    "an image map": """<img usemap="#m" alt="map" width="120" height="60" style="background:#fc0"><map name="m"><area shape="rect"
 coords="0,0,60,60" href="https://shop.example/left" alt="l"><area shape="rect" coords="60,0,120,60" href="#r" alt="r"></map>""",
    "a preheader": """<body><div style="display:none;max-height:0;overflow:hidden">Only in the list&zwnj;&nbsp;&zwnj;</div>
<p>Body with <a href="https://shop.example/v">view in browser</a></p></body>""",
    "anchors and other schemes": """<h2 id="top">T</h2><p><a href="#top">up</a> <a href="mailto:a@shop.example?subject=x">mail</a>
<a href="tel:+49123">call</a> <a href="sms:1">sms</a> <a href="cid:x">c</a> <a href="/rel">rel</a></p>""",
    "links that are not tracked": """<p><a data-no-track href="https://shop.example/reset?t=1">reset</a>
<a href="https://shop.example/help">help</a></p>""",
    "right to left": """<html dir="rtl" lang="ar"><body style="font-size:20px"><p>مرحبا <a href="https://shop.example/ع">هنا</a></p>
</body></html>""",
    "many scripts": """<p>日本語 <a href="https://shop.example/日本?q=語">リンク</a> 🎉 Ελληνικά Русский naïve</p>""",
    "inline svg": """<svg width="80" height="80" viewBox="0 0 8 8"><a href="https://shop.example/svg"><circle cx="4" cy="4" r="3"
 fill="#36c"/></a></svg><p>after</p>""",
    "flex and grid": """<div style="display:flex;gap:8px"><a href="https://shop.example/1" style="flex:1;background:#ddf">1</a>
<a href="https://shop.example/2" style="flex:2;background:#fdd">2</a></div><div style="display:grid;grid-template-columns:1fr 1fr">
<span>a</span><a href="https://shop.example/3">b</a></div>""",
    "a body that is flex": """<html><body style="display:flex;justify-content:space-between;margin:0"><div>left</div><a
 href="https://shop.example/">right</a></body></html>""",
    "preformatted": """<pre>
  if a &lt; b:   <a href="https://shop.example/code">code</a>
\tx = 1
</pre><code>&lt;a href="https://no.example/"&gt;</code>""",
    "text after the end": """<html><body><p>In <a href="https://shop.example/">x</a></p></body></html>
<p>After the end</p><!-- generated -->""",
    "comments": """<!-- <a href="https://no.example/1"> --><p>a<!--> b <a href="https://shop.example/">c</a> <!-- x --!> d</p>""",
    "a background and a bottom margin": """<body style="background:#234;color:#fff;margin:0"><div style="background:#456;
margin-bottom:30px;padding:10px">A <a style="color:#fff" href="https://shop.example/">b</a></div></body>""",
    "the last child is styled": """<style>.card:last-child { margin-bottom: 0; border: 0 } .card { border-bottom: 3px solid #f00;
margin: 10px }</style><div><div class="card">1 <a href="https://shop.example/1">x</a></div><div class="card">2</div></div>""",
    "a footer": """<table width="100%"><tr><td style="font:12px Arial;color:#888;text-align:center">Shop Ltd &middot; <a
 href="https://mail.example.com/mail/u/token" style="color:#888">Unsubscribe</a> &middot; <a
 href='https://shop.example/imprint'>Imprint</a></td></tr></table>""",
}
