"""Retention: removes what nothing points to, beside an API and workers that run.

    attempts       files of attempts that are over, which no row names    logs stay as long as their job
    deleted_jobs   files of jobs that are not there any more
    uploads        uploaded files that no version of a data set names
    scratch        work folders of attempts that are over, on this machine
    caches         prepared data that was not used for long, on this machine
    temporary      half-written files of processes that died
    expired_jobs   jobs that ended long ago, with their rows              only when asked for
    datasets       versions of data sets that no job names                only when asked for

Why no lock is needed: a fence only rises, and a row takes a new file only from the attempt that has its fence. So a
file below a smaller fence which no row names now will never be named. A job's row is older than its folder, so a folder
that was listed before its row was looked for, and has none, belongs to a job that was deleted. An uploaded file is
written again by whoever uploads it again, and a file that was written since it was listed is left alone.
"""
