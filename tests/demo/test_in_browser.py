"""The pages as visitors see them."""

import pytest
from pages import CLIPS
from playwright.sync_api import expect, sync_playwright


KNOWN, NEW = "The camera wearer wipes the carrot.", "The camera wearer wams the fedan."
FAULTS = {
    "text": "text.mp4: cannot be opened as a video",
    "long": "long.mp4 lasts 25.0 s; at most 20 s are taken",
}


@pytest.fixture(scope="module")
def browser(chromium):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens a page as a visitor of its own; at the end, no visitor's browser has asked any other host."""
    contexts, elsewhere = [], []

    def visit(page):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(30_000)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: elsewhere.append(request.url))
        tab.goto(page.address)
        tab.get_by_text("Trained on rendered video").wait_for()  # the checkpoint's notice
        return tab

    yield visit
    for context in contexts:
        context.close()
    assert (
        elsewhere and [url for url in elsewhere if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []
    )


def upload(tab, path):
    tab.locator("#clip input[type=file]").set_input_files(path)
    tab.locator("#clip").get_by_text(path.stem).first.wait_for()


def show(tab, name):
    """Adds a narrated clip."""
    upload(tab, CLIPS / f"{name}.mp4")
    narration = f"The camera wearer {name.replace('_', ' ')}."
    tab.locator("#narration textarea, #narration input").fill(narration)
    tab.locator("#add").click()
    expect(tab.locator("#conversation")).to_contain_text(f"{narration} (your example)")
    expect(tab.locator("#narration textarea, #narration input")).to_have_value("")


def answers(tab):
    return tab.locator("#conversation .bot.message").all_inner_texts()


def test_a_question_about_a_clip(visit, video_blip_page):
    tab = visit(video_blip_page)
    tab.locator("#clip input[type=file]").set_input_files(CLIPS / "wipes_the_carrot.mp4")
    clip = tab.locator("#clip video")
    clip.wait_for()
    tab.wait_for_function("document.querySelector('#clip video').videoWidth == 80")  # the browser plays it
    tab.locator("#answer").click()
    expect(tab.locator("#said textarea")).to_have_value(KNOWN)
    tab.wait_for_function("document.querySelector('#sheet img')?.naturalWidth > 400")


def test_an_example_of_a_clip(visit, video_blip_page):
    tab = visit(video_blip_page)
    tab.get_by_role("button", name="An action it knows").click()
    tab.locator("#clip video").wait_for()
    tab.locator("#answer").click()
    expect(tab.locator("#said textarea")).to_have_value(KNOWN)


def test_a_conversation(visit, eilev_page):
    tab = visit(eilev_page)
    show(tab, "wams_the_carrot")
    show(tab, "inserts_the_fedan")
    upload(tab, CLIPS / "wams_the_fedan.mp4")
    tab.locator("#respond").dblclick()  # as some do: it counts once
    answer = tab.locator("#conversation").get_by_text(NEW, exact=True)
    answer.wait_for()
    expect(tab.locator("#conversation video")).to_have_count(3)
    tab.wait_for_function("document.querySelector('#sheet img')?.naturalWidth > 400")
    tab.locator("#keep").click()
    tab.get_by_text(f"{NEW} (your example)").wait_for()
    tab.locator("#undo").click()
    expect(tab.locator("#conversation video")).to_have_count(2)
    tab.locator("#clear").click()
    expect(tab.locator("#conversation video")).to_have_count(0)


def test_an_example_of_a_conversation(visit, eilev_page):
    tab = visit(eilev_page)
    tab.get_by_role("button", name="New words, explained by two clips").click()
    tab.locator("#conversation").get_by_text(NEW, exact=True).wait_for()
    tab.get_by_role("button", name="New words, unexplained").click()  # a conversation from its beginning
    expect(tab.locator("#conversation video")).to_have_count(1)
    expect(tab.locator("#conversation")).not_to_contain_text("fedan")


def test_bad_files_are_told_and_the_page_goes_on(visit, eilev_page, bad_files):
    tab = visit(eilev_page)
    for kind, fault in FAULTS.items():
        upload(tab, bad_files[kind])
        tab.locator("#respond").click()
        tab.get_by_text(fault).wait_for()
        # Nothing else is covered or changed.
        expect(tab.locator("#conversation").get_by_text("Add narrated clips")).to_be_visible()
        expect(tab.get_by_text("Error", exact=True).filter(visible=True)).to_have_count(1)
        tab.reload()
        tab.locator("#respond").wait_for()
    tab.locator("#clip input[type=file]").set_input_files(bad_files["large"])
    tab.get_by_text("maximum allowed size").first.wait_for()
    tab.locator("#respond").click()
    tab.get_by_text("Choose a clip or a picture first").wait_for()
    tab.reload()
    upload(tab, CLIPS / "wipes_the_carrot.mp4")
    tab.locator("#respond").click()
    tab.locator("#conversation").get_by_text(KNOWN, exact=True).wait_for()


def test_two_visitors_do_not_mix(visit, eilev_page):
    first, second = visit(eilev_page), visit(eilev_page)
    show(first, "wams_the_carrot")
    upload(second, CLIPS / "wams_the_fedan.mp4")
    show(first, "inserts_the_fedan")
    second.locator("#respond").click()
    upload(first, CLIPS / "wams_the_fedan.mp4")
    first.locator("#respond").click()
    first.locator("#conversation").get_by_text(NEW, exact=True).wait_for()
    expect(second.locator("#conversation .bot.message")).to_have_count(1)
    expect(second.locator("#conversation")).not_to_contain_text("fedan")
    assert len(answers(first)) == 3
