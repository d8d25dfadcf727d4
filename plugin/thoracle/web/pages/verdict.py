"""What a reader says of a result, on the page or by another program."""

from fastapi import HTTPException, Request

from thoracle.errors import ThoracleError
from thoracle.store import trail
from thoracle.study import rows as studies
from thoracle.study import verdicts
from thoracle.study.verdict_rows import Opinion
from thoracle.web.session.access import Person, Role
from thoracle.web.site import address_of, site_of


def give_verdict(
    request: Request, person: Person, study: str, report: str, opinion: Opinion, comment: str
) -> int:
    """Keep a verdict, and return its number.

    Readers judge, whatever else they are: the verdict of an administrator would be nobody's
    reading.

    Raises
    ------
    HTTPException
        403: no reader. 404: no such study. 409: the result that was looked at is not the one that
        stands. 422: the comment is too long.
    """
    if Role.READER not in person.roles:
        raise HTTPException(403, "the role reader is required to judge a result")
    route = request.scope["route"]
    columns: trail.Columns = {
        "user_id": person.name,
        "network_address": address_of(request),
        "detail": {"means": f"POST {route.path}"},
    }
    if person.scopes is not None:
        columns["detail"]["token"] = True
    try:
        with site_of(request).database.begin() as connection:
            if studies.rows(connection, study) is None:
                raise HTTPException(404, "there is no such study")
            return verdicts.give(connection, study, report, opinion, comment, columns)
    except verdicts.ResultChanged as error:
        text = "There is another result by now, or none: look at it, then judge."
        raise HTTPException(409, text) from error
    except ThoracleError as error:
        raise HTTPException(422, str(error)) from error
