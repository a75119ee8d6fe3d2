"""PyMySQL in the place of mysqlclient, which would need a compiler and headers to install."""


def install() -> None:
    try:
        import pymysql
    except ImportError:
        return
    pymysql.version_info = (2, 2, 1, "final", 0)  # Django checks mysqlclient's version
    pymysql.install_as_MySQLdb()
